"""Health: each thing that keeps the tester from testing is named, and what the network does is never its fault."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jobtester.errors import JobTesterError
from jobtester.simulator.generated_scenario import generate
from tests.harness.simulated import SimulatedTester, simulated_tester
from tests.harness.waiting import until

SCENARIO = generate(seed=2, orchestrators=3, pipelines=("llm",), latency_s=(0.0, 0.01))


async def read_health(tester: SimulatedTester, path: str = "/healthz") -> tuple[int, dict[str, Any]]:
    """Return the status and the checks of /healthz or /readyz."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{tester.daemon.port}{path}") as answer,
    ):
        document = await answer.json()
    assert document["ok"] == (answer.status == 200) == all(check["ok"] for check in document["checks"].values())
    assert all(check["problem"] for check in document["checks"].values() if not check["ok"])
    return answer.status, document["checks"]


@asynccontextmanager
async def serving_tester(folder: Path) -> AsyncIterator[tuple[SimulatedTester, asyncio.Task[None]]]:
    """Start a daemon whose components all run."""
    async with simulated_tester(SCENARIO, folder) as tester:
        serving = asyncio.create_task(tester.daemon.serve())

        async def is_up() -> bool:
            return "clock" in (await read_health(tester))[1]

        await until(is_up, "the clock runs")
        try:
            yield tester, serving
        finally:
            tester.daemon.stop()
            await asyncio.wait({serving}, timeout=60)


async def test_every_check_is_listed_and_ok(tmp_path: Path) -> None:
    """Event loop, components, store and clock alone make /healthz; /readyz has each peer besides."""
    async with serving_tester(tmp_path) as (tester, serving):
        status, checks = await read_health(tester)
        assert (status, set(checks)) == (200, {"event_loop", "components", "store", "clock"})
        assert checks["clock"]["next_tick_at"] > time.time()
        status, peers = await read_health(tester, "/readyz")
        assert (status, set(peers) - set(checks)) == (200, {"gateway", "discovery", "leaderboard"})
    assert serving.exception() is None


async def test_a_network_that_fails_leaves_the_tester_healthy(tmp_path: Path) -> None:
    """Gateway, orchestrators and Leaderboard all gone: ready no more, with each named, and yet healthy."""
    async with serving_tester(tmp_path) as (tester, _):
        await tester.network.stop()
        assert tester.daemon.scheduler.request_tick("test")
        coordinator = tester.daemon.coordinator
        await until(lambda: coordinator.progress and coordinator.progress.report.finished_at, "the tick ends")
        assert coordinator.progress is not None
        assert coordinator.progress.report.state == "failed"
        status, checks = await read_health(tester)
        assert (status, checks["components"]) == (200, {"ok": True})
        status, checks = await read_health(tester, "/readyz")
        assert status == 503
        assert {name for name, check in checks.items() if not check["ok"]} >= {"gateway", "discovery"}


@pytest.mark.parametrize("component", ["health", "cleanup", "events", "delivery", "notification"])
async def test_a_component_that_has_ended_is_named(component: str, tmp_path: Path) -> None:
    """A component that ended without an error, which nothing else reports, makes the tester unhealthy."""
    async with serving_tester(tmp_path) as (tester, _):
        task = next(task for task in asyncio.all_tasks() if task.get_name() == component)
        task.cancel()
        await asyncio.wait({task})
        status, checks = await read_health(tester)
        assert status == 503
        assert checks["components"] == {"ok": False, "problem": f"no longer running: {component}"}


async def test_a_component_that_crashes_stops_the_tester_and_is_named(tmp_path: Path) -> None:
    """A tester that runs in part is worse than one that ended: the error names the component."""
    async with serving_tester(tmp_path) as (tester, serving):
        events = tester.daemon.events
        queue, events._events = events._events, None  # type: ignore[assignment]
        queue.put_nowait((None, None))  # type: ignore[arg-type]  # one bad event is survived, a lost queue is not
        await asyncio.wait({serving}, timeout=60)
        error = serving.exception()
        assert isinstance(error, JobTesterError)
        assert "the component events crashed" in str(error)


@pytest.mark.slow
async def test_a_store_that_cannot_be_written_is_unhealthy_until_it_can(tmp_path: Path) -> None:
    """Another program holds the file locked: unhealthy with the reason; let go of, it is well again."""
    async with serving_tester(tmp_path) as (tester, _):
        other = sqlite3.connect(tester.daemon.database.path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            assert not await tester.daemon.database.check_writable()
            status, checks = await read_health(tester)
            assert (status, checks["store"]["ok"]) == (503, False)
            assert "locked" in checks["store"]["problem"]
        finally:
            other.close()
        assert await tester.daemon.database.check_writable()
        assert (await read_health(tester))[0] == 200


async def test_a_clock_overdue_by_two_intervals_is_unhealthy(tmp_path: Path) -> None:
    """The interval is an hour: 100 minutes late is still well, two hours and more are not."""
    async with serving_tester(tmp_path) as (tester, _):
        due = tester.daemon.scheduler.schedule.next_at
        assert due is not None
        tester.daemon.health.wall = lambda: due + 100 * 60
        assert (await read_health(tester))[0] == 200
        tester.daemon.health.wall = lambda: due + 121 * 60
        status, checks = await read_health(tester)
        assert status == 503
        assert checks["clock"] == {"ok": False, "problem": "the next tick is overdue by 7260 s", "next_tick_at": due}


async def test_an_event_loop_that_is_held_up_is_unhealthy(tmp_path: Path) -> None:
    """The heartbeat measures its own delay: when it is late, every request that can still be answered says so."""
    async with serving_tester(tmp_path) as (tester, _):
        next(task for task in asyncio.all_tasks() if task.get_name() == "health").cancel()
        await asyncio.sleep(0)
        tester.daemon.health.clock = lambda: time.monotonic() + 15
        status, checks = await read_health(tester)
        assert status == 503
        assert checks["event_loop"]["problem"].startswith("no heartbeat for 1")
