"""A daemon against a simulated network, for tests: real sockets, a real store, and the simulator's own log."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobtester import configuration, daemon
from jobtester.daemon import Daemon
from jobtester.domain.report import Report
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import Scenario
from jobtester.simulator.served import Served
from jobtester.store.results import Filters
from jobtester.store.rows import Row

BATCH = (
    "text-to-image", "image-to-image", "image-to-video", "upscale", "audio-to-text", "segment-anything-2", "llm",
    "image-to-text", "text-to-speech",
)  # fmt: skip


@dataclass(slots=True)
class Stage:
    """A network with a tester that has tested it."""

    network: Network
    daemon: Daemon

    async def tick(self) -> Report:
        """Run one tick to its end, delivery included."""
        return await self.daemon.once("test")

    async def results(self, tick: str = "") -> list[Row]:
        """Give every kept result."""
        return await self.daemon.results.page(Filters(tick=tick), limit=100_000)


def tables(
    network: Network, folder: Path, *, gateways: Sequence[dict[str, Any]] = (), **sections: Any
) -> dict[str, Any]:
    """Configure a tester for a simulated network; `gateways` adds keys to each lane in order.

    What a tick waits for is short, what only a slow machine would need is long. The clock's next tick is half an hour
    away, also just before a full hour.
    """
    given = list(gateways) or [{} for _ in network.gateways]
    lanes = [
        {
            "name": name,
            "url": gateway.url,
            "cli_url": gateway.cli_url,
            "targeting": "query" if gateway.spec.mode == "query" else "webhook",
            "after_disconnect": "300ms",
            "first_ask": "30s",
            **more,
        }
        for (name, gateway), more in zip(network.gateways.items(), given, strict=True)
    ]
    offset = f"{(now() + 1800) % 3600:.0f}s"
    content: dict[str, Any] = {
        "region": "FRA",
        "schedule": {
            "interval": "1h",
            "offset": offset,
            "deadline": "5m",
            "run_at_start": False,
        },
        "server": {"host": "127.0.0.1", "port": 0, "events_token": ""},
        "gateways": lanes,
        "limits": {"jobs": 64, "busy_backoff": "50ms", "grace": "1s"},
        "leaderboard": {"url": network.leaderboard.url, "secret": network.leaderboard.secret},
        "store": {"path": str(folder / "jobtester.db")},
        "discovery": {"patience": "2s"},
        "pipelines": {slug: {"timeout": "60s", "cold_timeout": "60s"} for slug in BATCH},
    }
    for section, values in sections.items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    return content


@asynccontextmanager
async def staged(
    scenario: Scenario, folder: Path, *, gateways: Sequence[dict[str, Any]] = (), **sections: Any
) -> AsyncIterator[Stage]:
    """Start a network and a tester that knows it."""
    async with Network(scenario) as network:
        loaded = configuration.of(tables(network, folder, gateways=gateways, **sections), origin="test")
        async with daemon.opened(loaded) as running:
            aim(network, running)
            yield Stage(network, running)


def aim(network: Network, running: Daemon) -> None:
    """Tell every gateway where to ask whom to use, and where to send its events."""
    several = sum(lane.targeting.kind == "webhook" for lane in running.conductor.lanes) > 1
    for name, gateway in network.gateways.items():
        base = f"http://127.0.0.1:{running.port}"
        gateway.webhook_url = f"{base}/orchestrators/{name}" if several else f"{base}/orchestrators"
        if gateway.spec.events:
            gateway.events_url = f"{base}/webhooks/gateway-events"


def misattributed(results: Sequence[Row], network: Network) -> list[tuple[Row, Served]]:
    """Give every scored result that the simulator's own log contradicts.

    Those that somebody else than their orchestrator served, and those that were held against an orchestrator without
    a fault which the job never reached. A job that was sent twice (set aside, or busy) counts with its last sending.
    """
    by_job: dict[str, Served] = {}
    for one in network.served:
        if one.service_uri or one.request_id not in by_job:
            by_job[one.request_id] = one
    sound = {one.service_uri for one in network.scenario.orchestrators if not one.fault and one.state == "up"}
    wrong = []
    for row in results:
        if row.outcome == "unscored" or row.id not in by_job:
            continue
        one = by_job[row.id]
        reached = (one.service_uri, one.address.lower()) == (row.service_uri, row.address)
        if not reached and (one.service_uri or row.service_uri in sound):
            wrong.append((row, one))
    return wrong


def now() -> float:
    """Give Unix seconds."""
    return time.time()
