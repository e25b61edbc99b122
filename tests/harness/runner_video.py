"""A tester for the video apps of simulated live runners, with streams that are small and short."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.simulator.live_spec import LiveContainerSpec
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, OrchestratorSpec, RunnerSpec, Scenario
from tests.harness.simulated import SimulatedTester, config_tables

FPS = 20  # a frame is late only after 50 ms
VIDEO: dict[str, Any] = {"width": 192, "height": 192, "fps": FPS, "duration": "4s", "max_gap": "1.5s"}


def video_node(number: int, fault: str = "", *, fault_after_s: float = 2.0, **runner: Any) -> OrchestratorSpec:
    """Return an orchestrator with one video app."""
    app = RunnerSpec(
        **{
            "app": "x/echo", "version": "1", "app_kind": "video", "mode": "persistent", "latency_s": (0, 0),
            "fault": fault, **runner,
        }
    )  # fmt: skip
    return OrchestratorSpec(
        f"0x{number:040x}",
        service_uri="https://127.0.0.1:0",
        runners=(app,),
        live=LiveContainerSpec(fault_after_s=fault_after_s),
    )


@asynccontextmanager
async def video_tester(
    *nodes: OrchestratorSpec,
    folder: Path,
    live_runner: dict[str, Any] | None = None,
    video: dict[str, Any] | None = None,
) -> AsyncIterator[SimulatedTester]:
    """Run these orchestrators, and a tester with the built-in definition of the echo app, its stream made short."""
    scenario = Scenario("runner-video", 5, (GatewaySpec("g", mode="stock"),), nodes)
    echo = {"timeout": "4s", "cold_timeout": "4s", "video": {**VIDEO, **(video or {})}}
    async with Network(scenario) as network:
        payment = {"signer_url": network.signer.url}
        table = {"enabled": True, "networks": ["127.0.0.0/8"], "payment": payment, **(live_runner or {})}
        tables = config_tables(network, folder, live_runner=table, pipelines={"runner-video-echo": echo})
        async with open_daemon(Configuration.from_tables(tables, origin="test")) as daemon:
            yield SimulatedTester(network, daemon)
