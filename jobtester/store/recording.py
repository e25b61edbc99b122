"""Recording: results into the file, each with what has to be posted of it, many in few statements.

The writer gives the interpreter away and has to get it back at every statement, while the event loop wants it too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.store.rows import COLUMNS, storable_text

_MEMORY = 0.3
_SIZES = (16, 4, 1)  # rows of one statement: SQLite keeps each that it has seen, and large ones take much room
_OUTBOX = (
    "result", "tick", "gateway", "state", "body", "region", "orchestrator", "pipeline", "model", "timestamp", "round_trip_s",
    "created_at", "due_at",
)  # fmt: skip
# The newest result of a capability is kept at hand, its usual duration, and its run of unscored ones.
_REMEMBER = (
    "INSERT INTO latest (orchestrator, service_uri, pipeline, model, seq, mean_s, unscored_streak)"
    " SELECT orchestrator, service_uri, pipeline, model, seq, iif(outcome = 'passed', round_trip_s, NULL),"
    " outcome = 'unscored' FROM results WHERE seq > ? ORDER BY seq"
    " ON CONFLICT DO UPDATE SET seq = excluded.seq,"
    " mean_s = CASE WHEN excluded.mean_s IS NULL THEN mean_s WHEN mean_s IS NULL THEN excluded.mean_s"
    f" ELSE mean_s + {_MEMORY} * (excluded.mean_s - mean_s) END,"
    " unscored_streak = CASE WHEN excluded.unscored_streak THEN unscored_streak + 1 ELSE 0 END"
)


@dataclass(frozen=True, slots=True)
class NewResult:
    """A result to be kept at an instant, in Unix seconds, and the row of its stat, if it has one."""

    result: Result
    recorded_at: float
    posted: tuple[Any, ...] | None


def outbox_row(
    stat: Stat, job_id: str, tick: str, gateway: str, state: Literal["pending", "held"], now: float, due_at: float
) -> tuple[Any, ...]:
    """Make the row of a stat in the outbox."""
    return (
        job_id, tick, gateway, state, stat.body, stat.region, stat.orchestrator, stat.pipeline, stat.model,
        stat.timestamp, stat.round_trip_s, now, due_at,
    )  # fmt: skip


def insert_results(db: sqlite3.Connection, records: Sequence[NewResult]) -> list[bool]:
    """Keep results with their stats; tell for each whether it was kept: a job that has a result keeps that one."""
    (before,) = db.execute("SELECT coalesce(max(seq), 0) FROM results").fetchone()
    inserted = _insert(db, "results", COLUMNS[1:], [_row(one) for one in records], " ON CONFLICT (id) DO NOTHING")
    kept = [True] * len(records)
    if inserted < len(records):
        fresh = {job_id for (job_id,) in db.execute("SELECT id FROM results WHERE seq > ?", (before,))}
        kept = [_taken(fresh, one.result.id) for one in records]
    db.execute(_REMEMBER, (before,))
    insert_outbox_rows(
        db, [one.posted for one, new in zip(records, kept, strict=True) if new and one.posted is not None]
    )
    return kept


def insert_outbox_rows(db: sqlite3.Connection, stats: Sequence[tuple[Any, ...]]) -> None:
    """Put rows of stats into the outbox, inside the caller's transaction."""
    if stats:
        _insert(db, "outbox", _OUTBOX, stats)


def _insert(
    db: sqlite3.Connection, table: str, columns: Sequence[str], given: Sequence[tuple[Any, ...]], clause: str = ""
) -> int:
    """Insert rows, many by one statement, and give how many went in."""
    marks = f"({', '.join('?' * len(columns))})"
    inserted = begin = 0
    while begin < len(given):
        size = next(size for size in _SIZES if size <= len(given) - begin)
        values = [value for row in given[begin : begin + size] for value in row]
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([marks] * size)}{clause}"
        inserted += db.execute(statement, values).rowcount
        begin += size
    return inserted


def _row(record: NewResult) -> tuple[Any, ...]:
    """Give the values of a result in the order of its columns."""
    result = record.result
    job, verdict = result.job, result.verdict
    evidence = [storable_text(line) for line in result.attribution.evidence]
    notes = [{key: storable_text(value) for key, value in note.as_json().items()} for note in result.notes]
    return (
        result.id, job.tick, job.orchestrator.address, job.target.service_uri, job.pipeline, job.pipeline_name,
        job.model, int(job.warm), verdict.outcome.value, verdict.code, storable_text(verdict.message),
        result.attribution.kind.value, orjson.dumps(evidence).decode(), result.gateway,
        result.targeting, result.started_at, record.recorded_at, result.round_trip_s, result.artifact_s, result.status,
        orjson.dumps(dict(result.measures)).decode(), result.deferred,
        str(job.price_wei) if job.price_wei is not None else None, storable_text(result.request), storable_text(result.response),
        orjson.dumps(notes).decode(),
    )  # fmt: skip


def _taken(fresh: set[str], job_id: str) -> bool:
    """Tell whether a job's id is among the fresh ones, once."""
    if job_id not in fresh:
        return False
    fresh.discard(job_id)
    return True
