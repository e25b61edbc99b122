"""A simulated network in a process of its own, so that it does not share the event loop that is measured."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, generate


@dataclass(slots=True)
class Remote:
    """The network as seen from here. `gateways` are {"name", "url", "cli_url", "mode"} in order."""

    process: asyncio.subprocess.Process
    gateways: list[dict[str, str]]
    leaderboard: str

    async def ask(self, **command: Any) -> Any:
        """Send one command and give its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        return json.loads(await self.process.stdout.readline())

    async def served(self) -> list[dict[str, Any]]:
        """Give who served what, with the times of the network's own clock (monotonic, the same on one machine)."""
        found = await self.ask(do="served")
        assert isinstance(found, list)
        return found


@asynccontextmanager
async def network(*modes: str, **made: Any) -> AsyncIterator[Remote]:
    """Start a made-up network with one gateway per mode."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.network", json.dumps({"modes": modes, **made}),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**30,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        hello = json.loads(await process.stdout.readline())
        yield Remote(process, hello["gateways"], hello["leaderboard"])
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _serve(made: dict[str, Any]) -> None:
    modes = made.pop("modes")
    gateways = tuple(
        GatewaySpec(f"g{at}", mode=mode, stray_delay=0.005, retry_window=0.05) for at, mode in enumerate(modes)
    )
    for key in ("latency_s", "info_s", "pipelines"):
        if key in made:
            made[key] = tuple(made[key])
    async with Network(generate(gateways=gateways, **made)) as running:
        addresses = [
            {"name": name, "url": one.url, "cli_url": one.cli_url, "mode": one.spec.mode}
            for name, one in running.gateways.items()
        ]
        print(json.dumps({"gateways": addresses, "leaderboard": running.leaderboard.url}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            print(json.dumps(_answer(running, command)), flush=True)


def _answer(running: Network, command: dict[str, Any]) -> Any:
    match command["do"]:
        case "webhook":
            for name, url in command["urls"].items():
                running.gateways[name].webhook_url = url
            return True
        case _:
            return running.job_log.entries_after(0)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
