"""Measure pages and metrics over a million recorded results and the files that are kept of some."""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from dataclasses import replace

import aiohttp

from benchmarks.network import network
from benchmarks.recording import make_result
from benchmarks.rows import Row
from benchmarks.tester import LoopLag, tester
from jobtester.domain.exchanges import SentRequest
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Verdict
from jobtester.domain.result_details import ReceivedFile, ResultDetails
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.store.results import RESULT_COLUMNS

_ORCHESTRATORS = 60
_CAPABILITIES = 7  # of each orchestrator
_ORIGINALS = 2_100  # five of each capability
_COPIES = 480
_RUNS = 7
_COPIED_COLUMNS = tuple(
    name for name in (*RESULT_COLUMNS, "details") if name not in ("seq", "id", "started_at", "recorded_at")
)
_KEPT_EACH = 80  # one of so many results has a kept file
_FILE_BYTES = 16_000  # of a photograph of 320 pixels


async def measure() -> list[Row]:
    """Fill a store, then request pages as a browser does."""
    async with (
        network("query", seed=1, orchestrators=1, pipelines=["llm"]) as remote,
        tester(remote, post=False) as running,
    ):
        daemon = running.daemon
        result_id = ""
        for number in range(_ORIGINALS):
            result = _with_details(number)
            result_id = result.id if number % _KEPT_EACH == 0 else result_id
            await daemon.coordinator.results.record(result, Stat.from_result(result, "FRA"))
        await daemon.database.write(_copy_results)
        count = await daemon.database.read(lambda db: db.execute("SELECT count(*) FROM results").fetchone()[0])
        assert count == _ORIGINALS * _COPIES
        base = f"http://127.0.0.1:{daemon.port}"
        address = _with_details(7).job.orchestrator.address
        async with aiohttp.ClientSession() as session:
            times = {
                path: await _measure(session, base + path)
                for path in (
                    "/",
                    f"/o/{address}",
                    "/metrics",
                    "/outbox",
                    "/api/results",
                    f"/r/{result_id}",
                    f"/r/{result_id}/received",
                )
            }
            async with LoopLag() as lag:
                for path in times:
                    async with session.get(base + path) as response:
                        await response.read()
    bars = {"/": 100, f"/o/{address}": 150, "/metrics": 100, f"/r/{result_id}": 50, f"/r/{result_id}/received": 50}
    return [
        *(
            Row.with_bar(
                f"{path.replace(address, '…').replace(result_id, '…')} over {count:,} results, median",
                statistics.median(durations) * 1000,
                "ms",
                at_most=bars.get(path),
            )
            for path, durations in times.items()
        ),
        Row.with_bar("/ over as many, read for the first time", times["/"][0] * 1000, "ms"),
        Row.with_bar("longest block of the event loop meanwhile", lag.longest * 1000, "ms", at_most=20),
    ]


def _with_details(number: int) -> Result:
    """Return a result with details of the usual size; every few have a file."""
    transcript = " ".join(f"word{index}" for index in range(40))
    request = SentRequest(
        "POST", "http://gateway:8935/" + "x" * 60, {"X-Request-ID": "x" * 16, "Content-Type": "y" * 70}
    )
    file = ReceivedFile("image/jpeg", os.urandom(_FILE_BYTES), "ab" * 32, 900_000, 1024, 1024)
    details = ResultDetails(
        request,
        {"audio": {"name": "speech.wav", "sha256": "ab" * 32, "transcript": transcript}},
        ({"check": "transcript", "parameters": {"text": "text", "max_wer": 0.3}},),
        0.01,
        0.2,
        file if number % _KEPT_EACH == 0 else None,
    )
    result = make_result(number)
    orchestrator, capability = number % _ORCHESTRATORS, number // _ORCHESTRATORS % _CAPABILITIES
    job = replace(
        result.job,
        orchestrator=Orchestrator(f"0x{orchestrator:040x}", f"https://o{orchestrator}.example:8935"),
        capability=Capability("llm", f"model-{capability}"),
    )
    verdict = result.verdict if number % _KEPT_EACH else Verdict.from_code("check:transcript")
    return replace(result, job=job, details=details, verdict=verdict, response='{"text": "' + transcript[:200] + '"}')


async def _measure(session: aiohttp.ClientSession, url: str) -> list[float]:
    """Return the times of a few requests in seconds, in their order."""
    durations = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        async with session.get(url) as response:
            await response.read()
            assert response.status == 200, url
        durations.append(time.perf_counter() - began)
    return durations


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
    names = "content_type, sha256, size, original_size, width, height, seconds, kept_at"
    db.execute(
        f"INSERT INTO kept_files (seq, content, {names})"
        f" SELECT r.seq, randomblob(k.size), {', '.join(f'k.{name}' for name in names.split(', '))}"
        f" FROM results r, (SELECT * FROM kept_files LIMIT 1) k WHERE r.seq % {_KEPT_EACH} = 0"
        " AND r.seq NOT IN (SELECT seq FROM kept_files)"
    )
