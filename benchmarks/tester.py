"""Run a tester for a benchmark: everything on, on a network in another process."""

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
from jobtester.daemon.runtime import configure_runtime
from jobtester.domain.tick_report import TickReport
from jobtester.store.queries import Queries, ResultFilters
from jobtester.store.results import ResultRow

_SHORT_TIMEOUTS = {"after_disconnect": "300ms", "first_ask": "5s", "retry_window": "50ms", "settle": "20ms"}


@dataclass(slots=True)
class LoopLag:
    """Measures the longest time in seconds for which the event loop did not turn."""

    longest: float = 0.0
    _task: asyncio.Task[None] | None = field(default=None)

    async def __aenter__(self) -> LoopLag:
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
class MeasuredTick:
    """A tick that was measured: its report, its wall and processor time in seconds, and the loop's longest block."""

    report: TickReport
    wall_s: float
    cpu_s: float
    lag_s: float


@dataclass(slots=True)
class Tester:
    """A running tester that measures its ticks."""

    daemon: Daemon

    async def run_tick(self) -> MeasuredTick:
        """Run one tick, without waiting for delivery, and measure it."""
        async with LoopLag() as lag:
            cpu_began, began = time.process_time(), time.perf_counter()
            report = await self.daemon.coordinator.run_tick("bench")
            wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        return MeasuredTick(report, wall_s, cpu_s, lag.longest)

    async def results(self) -> list[ResultRow]:
        """Return every result."""
        return await Queries(self.daemon.database).page(ResultFilters(), limit=1_000_000)


@asynccontextmanager
async def tester(remote: Remote, **options: Any) -> AsyncIterator[Tester]:
    """Open a tester for a network.

    `options` are keys of [limits]; `gateway` holds those of every gateway, `server` those of [server], `pipelines`
    those of [pipelines]; `gateways` are tables of gateways besides the network's, `sections` further tables. `post`
    False posts nothing.
    """
    gateway, post, server = options.pop("gateway", {}), options.pop("post", True), options.pop("server", {})
    pipelines, extra_gateways = options.pop("pipelines", {}), options.pop("gateways", [])
    sections = options.pop("sections", {})
    gateways = [
        {
            "name": gateway_spec["name"],
            "url": gateway_spec["url"],
            "cli_url": gateway_spec["cli_url"],
            "targeting": "query" if gateway_spec["mode"] == "query" else "webhook",
            **_SHORT_TIMEOUTS,
            **gateway,
        }
        for gateway_spec in remote.gateways
    ] + extra_gateways
    with tempfile.TemporaryDirectory() as folder:
        content = {
            "region": "FRA",
            "schedule": {"interval": "1h", "run_at_start": False},
            "server": {"host": "127.0.0.1", "port": 0, **server},
            "gateways": gateways,
            "limits": {"jobs": 64, **options},
            "leaderboard": {"url": remote.leaderboard, "secret": "demo-secret", "post": post},
            "pipelines": pipelines,
            "store": {"path": str(Path(folder) / "bench.db")},
            **sections,
        }
        configuration = Configuration.from_tables(content, origin="benchmark")
        configure_runtime()  # as `serve` does
        async with open_daemon(configuration, post=post) as running:
            are_several = sum(gateway_spec["targeting"] == "webhook" for gateway_spec in gateways) > 1
            base = f"http://127.0.0.1:{running.port}/orchestrators"
            urls = {
                gateway_spec["name"]: f"{base}/{gateway_spec['name']}" if are_several else base
                for gateway_spec in remote.gateways
            }
            await remote.send_command(do="webhook", urls=urls)
            stop = asyncio.Event()
            delivery = asyncio.ensure_future(running.delivery.run(stop)) if running.delivery else None
            try:
                yield Tester(running)
            finally:
                stop.set()
                if delivery is not None:
                    await delivery
