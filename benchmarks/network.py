"""Run a simulated network in a process of its own, so that it does not share the event loop that is measured."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec


@dataclass(slots=True)
class Remote:
    """A network in another process. `gateways` are {"name", "url", "cli_url", "mode"} in order."""

    process: asyncio.subprocess.Process
    gateways: list[dict[str, str]]
    leaderboard: str

    async def send_command(self, **command: Any) -> Any:
        """Send one command and return its response."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        return json.loads(await self.process.stdout.readline())

    async def logged_jobs(self) -> list[dict[str, Any]]:
        """Return the log of served jobs, with instants of the monotonic clock, which all processes share."""
        jobs = await self.send_command(do="served")
        assert isinstance(jobs, list)
        return jobs


@asynccontextmanager
async def network(*modes: str, **scenario: Any) -> AsyncIterator[Remote]:
    """Start a generated network with one gateway per mode."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.network", json.dumps({"modes": modes, **scenario}),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**30,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        addresses = json.loads(await process.stdout.readline())
        yield Remote(process, addresses["gateways"], addresses["leaderboard"])
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _serve(scenario: dict[str, Any]) -> None:
    modes = scenario.pop("modes")
    gateways = tuple(
        GatewaySpec(f"g{index}", mode=mode, stray_delay=0.005, retry_window=0.05) for index, mode in enumerate(modes)
    )
    for key in ("latency_s", "info_s", "pipelines"):
        if key in scenario:
            scenario[key] = tuple(scenario[key])
    async with Network(generate(gateways=gateways, **scenario)) as running:
        gateway_addresses = [
            {"name": name, "url": gateway.url, "cli_url": gateway.cli_url, "mode": gateway.spec.mode}
            for name, gateway in running.gateways.items()
        ]
        print(json.dumps({"gateways": gateway_addresses, "leaderboard": running.leaderboard.url}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            print(json.dumps(_run_command(running, command)), flush=True)


def _run_command(running: Network, command: dict[str, Any]) -> Any:
    match command["do"]:
        case "webhook":
            for name, url in command["urls"].items():
                running.gateways[name].webhook_url = url
            return True
        case _:
            return running.job_log.entries_after(0)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
