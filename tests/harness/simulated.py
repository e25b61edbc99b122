"""A tester with a simulated network: real sockets, a real store, and the simulator's own log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.daemon.daemon import Daemon
from jobtester.domain.tick_report import TickReport
from jobtester.simulator.job_log import LoggedJob
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import Scenario
from jobtester.store.queries import Queries, ResultFilters
from jobtester.store.results import ResultRow
from tests.harness.waiting import TIMEOUT_S, until

BATCH_PIPELINES = (
    "text-to-image", "image-to-image", "image-to-video", "upscale", "audio-to-text", "segment-anything-2", "llm",
    "image-to-text", "text-to-speech",
)  # fmt: skip


@dataclass(slots=True)
class SimulatedTester:
    """A simulated network, and a daemon that is configured for it."""

    network: Network
    daemon: Daemon

    async def tick(self) -> TickReport:
        """Run one tick to its end, delivery included."""
        return await self.daemon.run_once("test")

    @asynccontextmanager
    async def serving(self, *, tick: bool = False) -> AsyncIterator[asyncio.Future[None]]:
        """Run everything that `serve` runs, with a tick at once if `tick`, and stop it in order at the end."""
        if tick:
            self.daemon.scheduler.request_tick("test")
        task = asyncio.ensure_future(self.daemon.serve())
        try:
            yield task
        finally:
            self.daemon.stop()
            await asyncio.wait_for(task, TIMEOUT_S)

    async def first_report(self) -> TickReport:
        """Wait for the end of the first tick."""
        reports: Sequence[TickReport] = await until(
            lambda: self.daemon.coordinator.reports, "the tick ends", timeout_s=100
        )
        return reports[0]

    async def results(self, tick: str = "") -> list[ResultRow]:
        """Return every stored result."""
        return await Queries(self.daemon.database).page(ResultFilters(tick=tick), limit=100_000)


def config_tables(
    network: Network, folder: Path, *, gateways: Sequence[dict[str, Any]] = (), **sections: Any
) -> dict[str, Any]:
    """Return the tables of a config.toml for a simulated network; `gateways` adds keys to each gateway in order.

    What a tick waits for is short, what only a slow machine needs is long. The next scheduled tick is half an hour
    away, also just before a full hour.
    """
    additions = list(gateways) or [{} for _ in network.gateways]
    gateway_tables = [
        {
            "name": name,
            "url": gateway.url,
            "cli_url": gateway.cli_url,
            "targeting": "query" if gateway.spec.mode == "query" else "webhook",
            "after_disconnect": "300ms",
            "first_ask": "30s",
            **added,
        }
        for (name, gateway), added in zip(network.gateways.items(), additions, strict=True)
    ]
    offset = f"{(time.time() + 1800) % 3600:.0f}s"
    content: dict[str, Any] = {
        "region": "FRA",
        "schedule": {
            "interval": "1h",
            "offset": offset,
            "deadline": "5m",
            "run_at_start": False,
        },
        "server": {"host": "127.0.0.1", "port": 0, "events_token": ""},
        "gateways": gateway_tables,
        "limits": {"jobs": 64, "busy_backoff": "50ms", "grace": "1s"},
        "leaderboard": {"url": network.leaderboard.url, "secret": network.leaderboard.secret},
        "store": {"path": str(folder / "jobtester.db")},
        "discovery": {"patience": "2s"},
        "pipelines": {slug: {"timeout": "60s", "cold_timeout": "60s"} for slug in BATCH_PIPELINES},
    }
    for section, values in sections.items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    return content


@asynccontextmanager
async def simulated_tester(
    scenario: Scenario, folder: Path, *, gateways: Sequence[dict[str, Any]] = (), **sections: Any
) -> AsyncIterator[SimulatedTester]:
    """Start a network, and a tester for it."""
    async with Network(scenario) as network:
        loaded = Configuration.from_tables(config_tables(network, folder, gateways=gateways, **sections), origin="test")
        async with open_daemon(loaded) as running:
            connect_gateways(network, running)
            yield SimulatedTester(network, running)


def connect_gateways(network: Network, running: Daemon) -> None:
    """Set the webhook of every gateway, and where it sends its events."""
    several = sum(gateway.targeting.kind == "webhook" for gateway in running.coordinator.gateways) > 1
    for name, gateway in network.gateways.items():
        base = f"http://127.0.0.1:{running.port}"
        gateway.webhook_url = f"{base}/orchestrators/{name}" if several else f"{base}/orchestrators"
        if gateway.spec.events:
            gateway.events_url = f"{base}/webhooks/gateway-events"


def misattributed_results(results: Sequence[ResultRow], network: Network) -> list[tuple[ResultRow, LoggedJob]]:
    """Return every scored result that the simulator's own log contradicts.

    Those that somebody else than their orchestrator served, and those that were held against an orchestrator without
    a fault which the job never reached. A job that was sent twice (unproven, or busy) counts with its last sending.
    """
    by_job: dict[str, LoggedJob] = {}
    for served in network.logged_jobs:
        if served.service_uri or served.request_id not in by_job:
            by_job[served.request_id] = served
    sound = {node.service_uri for node in network.scenario.orchestrators if not node.fault and node.state == "up"}
    wrong = []
    for row in results:
        if row.outcome == "unscored" or row.id not in by_job:
            continue
        served = by_job[row.id]
        reached = (served.service_uri, served.address.lower()) == (row.service_uri, row.orchestrator)
        if not reached and (served.service_uri or row.service_uri in sound):
            wrong.append((row, served))
    return wrong
