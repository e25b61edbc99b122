"""Run a simulated network in a process of its own, so that it does not share the event loop that is measured."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import CommandedProcess, commanded_module
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.leaderboard.faults import Faults
from jobtester.simulator.network import Network, Ports
from jobtester.simulator.scenario import GatewaySpec, OrchestratorSpec, RunnerSpec, Scenario, SecondsRange


@dataclass(slots=True)
class Remote:
    """A network in another process. `gateways` are {"name", "url", "cli_url", "mode"} in order."""

    process: CommandedProcess
    gateways: list[dict[str, str]]
    leaderboard: str
    signer: str

    async def send_command(self, **command: Any) -> Any:
        """Send one command and return its response."""
        return await self.process.send_command(**command)

    async def logged_jobs(self) -> list[dict[str, Any]]:
        """Return the log of served jobs, with instants of the monotonic clock, which all processes share."""
        jobs = await self.send_command(do="served")
        assert isinstance(jobs, list)
        return jobs


@asynccontextmanager
async def network(*modes: str, **scenario: Any) -> AsyncIterator[Remote]:
    """Start a generated network with one gateway per mode.

    With `file` it is the network of a scenario file, whose gateways call clients of live video at `live_callback`; with
    `live_runners` so many orchestrators, each with an unpaid, a paid and a persistent live runner.
    """
    async with commanded_module("benchmarks.network", json.dumps({"modes": modes, **scenario})) as process:
        yield Remote(process, **process.started)


async def _serve(scenario: dict[str, Any]) -> None:
    async with _create_network(scenario) as running:
        gateway_addresses = [
            {"name": name, "url": gateway.url, "cli_url": gateway.cli_url, "mode": gateway.spec.mode}
            for name, gateway in running.gateways.items()
        ]
        urls = {"leaderboard": running.leaderboard.url, "signer": running.signer.url}
        print(json.dumps({"gateways": gateway_addresses, **urls}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            print(json.dumps(_run_command(running, command)), flush=True)


def _create_network(scenario: dict[str, Any]) -> Network:
    modes = scenario.pop("modes")
    if "file" in scenario:
        ports = Ports({}, live_callback=scenario["live_callback"])
        return Network(Scenario.load(Path(scenario["file"])), ports=ports)
    if "live_runners" in scenario:
        return Network(_live_runners(scenario["live_runners"], tuple(scenario["latency_s"])))
    gateways = tuple(
        GatewaySpec(f"g{index}", mode=mode, stray_delay=0.005, retry_window=0.05) for index, mode in enumerate(modes)
    )
    for key in ("latency_s", "info_s", "pipelines"):
        if key in scenario:
            scenario[key] = tuple(scenario[key])
    return Network(generate(gateways=gateways, **scenario))


def _live_runners(count: int, latency_s: SecondsRange) -> Scenario:
    runners = (
        RunnerSpec("bench/hello-world", latency_s=latency_s),
        RunnerSpec("bench/openai-chat", app_kind="openai-chat", latency_s=latency_s, price=123_456),
        RunnerSpec("bench/echo", app_kind="echo", mode="persistent", latency_s=latency_s),
    )
    nodes = tuple(
        OrchestratorSpec(f"0x{number:040x}", service_uri="https://127.0.0.1:0", runners=runners)
        for number in range(1, count + 1)
    )
    return Scenario("live-runners", 1, (GatewaySpec("g", mode="stock"),), nodes)


def _run_command(running: Network, command: dict[str, Any]) -> Any:
    match command["do"]:
        case "webhook":
            for name, url in command["urls"].items():
                running.gateways[name].webhook_url = url
            return True
        case "leaderboard":
            running.leaderboard.faults = Faults(**command["faults"])
            rows = running.leaderboard.rows
            return {"rows": len(rows), "distinct": len({row.body for row in rows})}
        case "runner requests":
            return running.job_log.runner_requests_after(0)
        case _:
            return running.job_log.entries_after(0)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
