"""A store with a long history: many orchestrators, one that fails in each way, hundreds of ticks."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator, RunnerOffer
from jobtester.domain.plan import Skip
from jobtester.domain.reasons import REASONS, Outcome, Verdict
from jobtester.domain.results import Result
from jobtester.domain.tick_report import TickReport
from jobtester.store.database import Database
from jobtester.store.results import RESULT_COLUMNS, Results
from jobtester.store.skips import Skips
from jobtester.store.ticks import Ticks

PIPELINES = (
    "audio-to-text", "image-to-image", "image-to-text", "image-to-video", "llm", "segment-anything-2",
    "text-to-image", "text-to-speech", "upscale",
)  # fmt: skip
_HOUR_S = 3600.0
_CHANGED = ("seq", "id", "tick", "started_at", "recorded_at", "outcome", "reason", "message", "round_trip_s")


@dataclass(frozen=True)
class LongHistory:
    """What was written: the failing orchestrators by their reason, one that is only skipped, and the ticks' ids."""

    failing: dict[str, str]
    skipped: str
    ticks: tuple[str, ...]


def address_of(number: int) -> str:
    """Return the address of the orchestrator with a number."""
    return f"0x{number:04x}{'c0ffee' * 6}"


def failing_codes() -> list[str]:
    """Return every reason that scores an orchestrator as failed, one check standing for all."""
    return [reason.code.replace("*", "image") for reason in REASONS.values() if reason.outcome is Outcome.FAILED]


async def write_long_history(database: Database, *, orchestrators: int = 60, ticks: int = 500) -> LongHistory:
    """Write an hourly tick for each of the last `ticks` hours, of which the newest has ended."""
    draw, codes, now = random.Random(7), failing_codes(), time.time()
    skipped = address_of(orchestrators)
    capability = Capability("llm", "meta/llama")
    skip = Skip(skipped, f"https://gpu-{orchestrators}.example:8935", "llm", "meta/llama", "disabled", capability)
    starts = [now - age * _HOUR_S - 900 for age in range(ticks - 1, -1, -1)]
    ids = [time.strftime("%Y%m%dT%H%M%S000Z", time.gmtime(started_at)) for started_at in starts]
    newest = [
        _make_result(draw, number, index, codes, ids[-1], starts[-1])
        for number in range(orchestrators)
        for index in range(len(PIPELINES) - number % 5)
    ]
    for tick, started_at in zip(ids, starts, strict=True):
        report = TickReport(tick, "cron", started_at, seed=1, orchestrators=orchestrators, planned=len(newest))
        report.planned_at, report.finished_at = started_at + 1.5, started_at + 300
        for result in newest:
            report.add_result(result)
        report.add_skips([skip])
        await Ticks(database).start(tick, started_at, 1, "cron")
        await Skips(database).record([skip], started_at)
        await Ticks(database).finish(tick, "finished", report.finished_at, report.as_json())
    for result in newest:
        assert await Results(database).record(result, None)
    await database.write(lambda db: _copy_into_the_past(db, ids))
    return LongHistory({code: address_of(number) for number, code in enumerate(codes)}, skipped, tuple(ids))


def _make_result(
    draw: random.Random, number: int, index: int, codes: Sequence[str], tick: str, started_at: float
) -> Result:
    capability = Capability(PIPELINES[index + number % 5], "some/model-v1", warm=index % 3 > 0)
    if index == 0 and number % 7 == 3:
        offer = RunnerOffer("https://gpu.example/app", "single-shot", gpu="RTX 4090")
        capability = Capability("lv2v-style", "1.0", warm=True, runner=offer)
    if index == 0 and number % 7 == 4:
        capability = Capability("my-byoc-app", "my-byoc-app", byoc=True, warm=True)
    is_unscored = index == 1 and number % 11 == 5
    code = codes[number] if index == 0 and number < len(codes) else "busy" if is_unscored else "ok"
    job = Job(
        id=f"{number:04x}{index:04x}",
        tick=tick,
        orchestrator=Orchestrator(address_of(number), f"https://gpu-{number}.example:8935"),
        capability=capability,
        pipeline_name="Llm",
        timeout_s=90.0,
        expected_s=2.0,
        price_wei=4_000_000_000_000 + number,
    )
    return Result(
        job=job,
        verdict=Verdict.from_code(code),
        attribution=Attribution(AttributionKind.PROVEN, ("metric: its series moved",)),
        gateway="gateway",
        targeting="query",
        started_at=started_at + draw.uniform(0, 200),
        round_trip_s=90.0 if code == "timeout" else draw.uniform(0.4, 6),
        status=200 if code == "ok" else 500,
        request='{"prompt": "what is six times seven?"}',
    )


def _copy_into_the_past(db: sqlite3.Connection, ticks: Sequence[str]) -> None:
    """Repeat the newest results in the ticks before; what fails now failed a day ago too, and sometimes between."""
    columns = ", ".join(name for name in RESULT_COLUMNS if name not in _CHANGED)
    db.execute("CREATE TEMP TABLE newest AS SELECT * FROM results")
    db.execute("DELETE FROM results")
    for age, tick in zip(range(len(ticks) - 1, -1, -1), ticks, strict=True):
        keeps = "1" if age in (0, 24) else f"(newest.rowid + {age}) % 9 = 0"
        db.execute(
            "INSERT INTO results (id, tick, started_at, recorded_at, outcome, reason, message, round_trip_s,"
            f" {columns})"
            f" SELECT id || ?, ?, started_at - ?, recorded_at - ?, iif({keeps}, outcome, 'passed'),"
            f" iif({keeps}, reason, 'ok'), iif({keeps}, message, ''),"
            f" iif({keeps}, round_trip_s, 1 + (newest.rowid * 37 + {age} * 17) % 60 / 30.0), {columns} FROM newest",
            (f"-{age}" if age else "", tick, age * _HOUR_S, age * _HOUR_S),
        )
    db.execute(
        "UPDATE latest SET seq = (SELECT r.seq FROM results r JOIN newest n ON n.id = r.id WHERE n.seq = latest.seq)"
    )
    db.execute("DROP TABLE newest")
