"""Measure how fast a backlog of stats reaches a healthy Leaderboard and a failing one, and how soon after an outage."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.leaderboards import RemoteLeaderboards, leaderboards
from benchmarks.recording import make_result
from benchmarks.rows import Row
from jobtester.domain.stats import Stat
from jobtester.leaderboard.client import LeaderboardClient
from jobtester.leaderboard.delivery import Delivery
from jobtester.leaderboard.options import DeliveryOptions
from jobtester.store.database import Database
from jobtester.store.outbox import Outbox
from jobtester.store.results import Results

_SECRET = "bench"
_BACKLOG = 20_000
_FAILING_S = 45.0
_OUTAGE_S = 40.0  # longer than a post may take, and than the breaker's pauses grow
_WAIT_S = 120.0
_MISS_AFTER_S = 3.0  # by default 90 s and more, which would only make the benchmark long
_OUTAGES: dict[str, dict[str, Any]] = {
    "nothing listens": {"do": "stop"},
    "nothing answers": {"do": "hang"},
    "503 from a proxy": {"do": "faults", "faults": {"status": 503}},
    "the database is down": {"do": "faults", "faults": {"database_down": "500"}},
    "posts hang": {"do": "faults", "faults": {"withheld_posts": 1.0}},
}


async def measure() -> list[Row]:
    """Return the rates of delivery, then how long it takes to begin again after each kind of outage."""
    async with leaderboards(2 + len(_OUTAGES)) as remote:
        healthy_rate = await _measure_healthy(remote, 0)
        async with asyncio.TaskGroup() as group:  # side by side, since all of them mostly wait
            outages = [
                group.create_task(_measure_outage(remote, 2 + number, outage))
                for number, outage in enumerate(_OUTAGES.values())
            ]
            failing_rate, lost, doubled = await _measure_failing(remote, 1)
        begins = [outage.result() for outage in outages]
    return [
        Row.with_bar(f"delivery of a backlog of {_BACKLOG:,}, stats per second", healthy_rate, "/s", at_least=500),
        Row.with_bar("the same while a third of the posts fails", failing_rate, "/s", at_least=50),
        Row.with_bar("stats of that backlog lost or counted twice", lost + doubled, "", at_most=0),
        *(
            Row.with_bar(f"delivery begins again after an outage ({name})", begin_s, "s", at_most=10)
            for name, begin_s in zip(_OUTAGES, begins, strict=True)
        ),
    ]


@asynccontextmanager
async def _backlog(url: str, count: int, **options: Any) -> AsyncIterator[Outbox]:
    """Record `count` stats, then deliver them to `url` until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "bench.db")
        await database.open()
        try:
            results, outbox, began_at = Results(database), Outbox(database), time.time()
            for start in range(0, count, 64):
                recorded = [
                    replace(make_result(number), started_at=began_at, round_trip_s=0.5 + number / 1e5)
                    for number in range(start, min(start + 64, count))
                ]
                await asyncio.gather(*(results.record(r, Stat.from_result(r, "FRA")) for r in recorded))
            delivery = Delivery.create(outbox, LeaderboardClient(url, _SECRET), DeliveryOptions("FRA", **options))
            await delivery.open()
            stop = asyncio.Event()
            running = asyncio.ensure_future(delivery.run(stop))
            try:
                yield outbox
            finally:
                stop.set()
                await running
                await delivery.close()
        finally:
            await database.close()


async def _measure_healthy(remote: RemoteLeaderboards, number: int) -> float:
    """Return how many stats a second are delivered to a healthy Leaderboard."""
    async with _backlog(remote.urls[number], _BACKLOG) as outbox:
        began = time.perf_counter()
        while await outbox.count_waiting():  # noqa: ASYNC110 -- only the table tells
            await asyncio.sleep(0.1)
        return _BACKLOG / (time.perf_counter() - began)


async def _measure_failing(remote: RemoteLeaderboards, number: int) -> tuple[float, int, int]:
    """Return the rate while a third of the posts fails; then heal, and return how many were lost, and how many doubled.

    A ninth each is answered 500, never answered (half of them stored), or cut off (half of them stored).
    """
    faults = {
        "post_errors": 1 / 9, "withheld_posts": 1 / 18, "withheld_answers": 1 / 18,
        "drop_before_store": 1 / 18, "drop_after_store": 1 / 18,
    }  # fmt: skip
    await remote.command(number, "faults", faults=faults)
    async with _backlog(remote.urls[number], _BACKLOG, miss_after_s=_MISS_AFTER_S) as outbox:
        began = time.perf_counter()
        while time.perf_counter() - began < _FAILING_S and await outbox.count_waiting():  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.1)
        wall_s = time.perf_counter() - began
        rate = (await outbox.counts())["delivered"] / wall_s
        await remote.command(number, "faults", faults={})
        while await outbox.count_waiting():  # noqa: ASYNC110 -- only the table tells
            await asyncio.sleep(0.1)
    counts = await remote.command(number, "count")
    return rate, _BACKLOG - counts["distinct"], counts["rows"] - counts["distinct"]


async def _measure_outage(remote: RemoteLeaderboards, number: int, outage: dict[str, Any]) -> float:
    """Return how many seconds after the end of an outage the first stat is stored."""
    async with _backlog(remote.urls[number], 2_000) as outbox:
        while (await outbox.counts())["delivered"] < 200:  # noqa: ASYNC110 -- only the table tells
            await asyncio.sleep(0.01)
        await remote.command(number, **outage)
        await asyncio.sleep(_OUTAGE_S + number)
        end = "faults" if outage["do"] == "faults" else "start"
        back_at = (await remote.command(number, end, faults={}))["now"]
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            counts = await remote.command(number, "count", since=back_at)
            if counts["first_at"] is not None:
                return float(counts["first_at"] - back_at)
            await asyncio.sleep(0.05)
        return _WAIT_S
