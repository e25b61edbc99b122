"""Measure pages and metrics over a million recorded results."""

from __future__ import annotations

import sqlite3
import statistics
import time

import aiohttp

from benchmarks.network import network
from benchmarks.recording import make_result
from benchmarks.rows import Row
from benchmarks.tester import LoopLag, tester
from jobtester.domain.stats import Stat
from jobtester.store.results import RESULT_COLUMNS

_ORIGINALS = 2_000
_COPIES = 500
_RUNS = 7
_COPIED_COLUMNS = tuple(name for name in RESULT_COLUMNS if name not in ("seq", "id", "started_at", "recorded_at"))


async def measure() -> list[Row]:
    """Fill a store, then request pages as a browser does."""
    async with (
        network("query", seed=1, orchestrators=1, pipelines=["llm"]) as remote,
        tester(remote, post=False) as running,
    ):
        daemon = running.daemon
        for number in range(_ORIGINALS):
            await daemon.coordinator.results.record(make_result(number), Stat.from_result(make_result(number), "FRA"))
        await daemon.database.write(_copy_results)
        count = await daemon.database.read(lambda db: db.execute("SELECT count(*) FROM results").fetchone()[0])
        assert count == _ORIGINALS * _COPIES
        base = f"http://127.0.0.1:{daemon.port}"
        address = make_result(7).job.orchestrator.address
        async with aiohttp.ClientSession() as session:
            medians = {
                path: await _measure_median(session, base + path)
                for path in ("/", f"/o/{address}", "/metrics", "/outbox", "/api/results")
            }
            async with LoopLag() as lag:
                for path in medians:
                    async with session.get(base + path) as response:
                        await response.read()
    bars = {"/": 200, f"/o/{address}": 300, "/metrics": 100}
    return [
        *(
            Row.with_bar(
                f"{path.replace(address, '…')} over {count:,} results, median",
                median_s * 1000,
                "ms",
                at_most=bars.get(path),
            )
            for path, median_s in medians.items()
        ),
        Row.with_bar("longest block of the event loop meanwhile", lag.longest * 1000, "ms", at_most=50),
    ]


async def _measure_median(session: aiohttp.ClientSession, url: str) -> float:
    """Return the median time of a few requests in seconds."""
    durations = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        async with session.get(url) as response:
            await response.read()
            assert response.status == 200, url
        durations.append(time.perf_counter() - began)
    return statistics.median(durations)


def _copy_results(db: sqlite3.Connection) -> None:
    """Copy every result into the past, an hour further back each time."""
    columns = ", ".join(_COPIED_COLUMNS)
    db.execute("CREATE TEMP TABLE base AS SELECT * FROM results")
    db.execute(
        "WITH RECURSIVE copies(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copies WHERE n < ?)"
        f" INSERT INTO results (id, started_at, recorded_at, {columns})"
        f" SELECT base.id || '-' || n, base.started_at - 3600 * n, base.recorded_at - 3600 * n, {columns}"
        " FROM copies, base",
        (_COPIES - 1,),
    )
