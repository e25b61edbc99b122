"""A tester set up for a benchmark: everything on, on a network in another process."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.network import Remote
from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.daemon.daemon import Daemon
from jobtester.domain.tick_report import TickReport
from jobtester.store.queries import Queries, ResultFilters
from jobtester.store.results import ResultRow

SHORT = {"after_disconnect": "300ms", "first_ask": "5s", "retry_window": "50ms", "settle": "20ms"}


@dataclass(slots=True)
class Lag:
    """A probe of the event loop: the longest time in seconds for which it did not turn."""

    longest: float = 0.0
    _task: asyncio.Task[None] | None = field(default=None)

    async def __aenter__(self) -> Lag:
        self._task = asyncio.ensure_future(self._probe())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()

    async def _probe(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - before - 0.001)


@dataclass(slots=True)
class Tick:
    """A tick that was measured: its report, its wall and processor time in seconds, and the loop's longest block."""

    report: TickReport
    wall_s: float
    cpu_s: float
    lag_s: float


@dataclass(slots=True)
class Tester:
    """A running tester."""

    daemon: Daemon

    async def tick(self) -> Tick:
        """Run one tick, without waiting for delivery, and measure it."""
        async with Lag() as lag:
            cpu, began = time.process_time(), time.perf_counter()
            report = await self.daemon.coordinator.run_tick("bench")
            wall, used = time.perf_counter() - began, time.process_time() - cpu
        return Tick(report, wall, used, lag.longest)

    async def results(self) -> list[ResultRow]:
        """Give every result."""
        return await Queries(self.daemon.database).page(ResultFilters(), limit=1_000_000)


@asynccontextmanager
async def tester(remote: Remote, **more: Any) -> AsyncIterator[Tester]:
    """Open a tester for a network.

    `more` are keys of [limits]; `gateway` holds those of every gateway, `server` those of [server], `pipelines`
    those of [pipelines]; `gateways` are tables of gateways besides the network's. `post` False posts nothing.
    """
    gateway, post, server = more.pop("gateway", {}), more.pop("post", True), more.pop("server", {})
    pipelines, besides = more.pop("pipelines", {}), more.pop("gateways", [])
    gateways = [
        {
            "name": one["name"],
            "url": one["url"],
            "cli_url": one["cli_url"],
            "targeting": "query" if one["mode"] == "query" else "webhook",
            **SHORT,
            **gateway,
        }
        for one in remote.gateways
    ] + besides
    with tempfile.TemporaryDirectory() as folder:
        content = {
            "region": "FRA",
            "schedule": {"interval": "1h", "run_at_start": False},
            "server": {"host": "127.0.0.1", "port": 0, **server},
            "gateways": gateways,
            "limits": {"jobs": 64, **more},
            "leaderboard": {"url": remote.leaderboard, "secret": "demo-secret", "post": post},
            "pipelines": pipelines,
            "store": {"path": str(Path(folder) / "bench.db")},
        }
        loaded = Configuration.from_tables(content, origin="benchmark")
        async with open_daemon(loaded, post=post) as running:
            several = sum(one["targeting"] == "webhook" for one in gateways) > 1
            base = f"http://127.0.0.1:{running.port}/orchestrators"
            urls = {one["name"]: f"{base}/{one['name']}" if several else base for one in remote.gateways}
            await remote.ask(do="webhook", urls=urls)
            stop = asyncio.Event()
            delivery = asyncio.ensure_future(running.delivery.run(stop)) if running.delivery else None
            try:
                yield Tester(running)
            finally:
                stop.set()
                if delivery is not None:
                    await delivery
