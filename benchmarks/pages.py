"""Pages and metrics over a million recorded results."""

from __future__ import annotations

import sqlite3
import statistics
import time

import aiohttp

from benchmarks.keeping import make_result
from benchmarks.network import network
from benchmarks.rows import Row
from benchmarks.tester import Lag, tester
from jobtester.domain.stats import Stat
from jobtester.store.results import RESULT_COLUMNS

_BASE = 2_000
_COPIES = 500
_RUNS = 7
_FRESH = tuple(name for name in RESULT_COLUMNS if name not in ("seq", "id", "started_at", "recorded_at"))


async def measure() -> list[Row]:
    """Fill a file, then ask as a browser does."""
    async with (
        network("query", seed=1, orchestrators=1, pipelines=["llm"]) as remote,
        tester(remote, post=False) as running,
    ):
        daemon = running.daemon
        for number in range(_BASE):
            await daemon.coordinator.results.record(make_result(number), Stat.from_result(make_result(number), "FRA"))
        await daemon.database.write(_multiply)
        kept = await daemon.database.read(lambda db: db.execute("SELECT count(*) FROM results").fetchone()[0])
        assert kept == _BASE * _COPIES
        base = f"http://127.0.0.1:{daemon.port}"
        address = make_result(7).job.orchestrator.address
        async with aiohttp.ClientSession() as session:
            found = {
                path: await _median(session, base + path)
                for path in ("/", f"/o/{address}", "/metrics", "/outbox", "/api/results")
            }
            async with Lag() as lag:
                for path in found:
                    async with session.get(base + path) as response:
                        await response.read()
    bars = {"/": 200, f"/o/{address}": 300, "/metrics": 100}
    return [
        *(
            Row.with_bar(
                f"{path.replace(address, '…')} over {kept:,} results, median", took * 1000, "ms", at_most=bars.get(path)
            )
            for path, took in found.items()
        ),
        Row.with_bar("longest block of the event loop meanwhile", lag.longest * 1000, "ms", at_most=50),
    ]


async def _median(session: aiohttp.ClientSession, url: str) -> float:
    """Ask a few times; give the median in seconds."""
    took = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        async with session.get(url) as response:
            await response.read()
            assert response.status == 200, url
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _multiply(db: sqlite3.Connection) -> None:
    """Copy every result into the past, an hour further back each time."""
    columns = ", ".join(_FRESH)
    db.execute("CREATE TEMP TABLE base AS SELECT * FROM results")
    db.execute(
        "WITH RECURSIVE copies(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copies WHERE n < ?)"
        f" INSERT INTO results (id, started_at, recorded_at, {columns})"
        f" SELECT base.id || '-' || n, base.started_at - 3600 * n, base.recorded_at - 3600 * n, {columns}"
        " FROM copies, base",
        (_COPIES - 1,),
    )
