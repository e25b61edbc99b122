"""Read one result with everything that is stored about it: its details, its stat and what came back."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from jobtester.domain.orchestrators import CapabilityKey
from jobtester.store.database import Database, select_statement
from jobtester.store.outbox import OutboxEntry
from jobtester.store.results import RESULT_COLUMNS, ResultRow

_FILE_COLUMNS = ("content_type", "sha256", "size", "original_size", "width", "height", "seconds", "kept_at")
_STAT_COLUMNS = tuple(OutboxEntry.__dataclass_fields__)
_SELECT_RESULT = select_statement(("details", *RESULT_COLUMNS), "results") + " WHERE id = ?"
_SELECT_STAT = select_statement(_STAT_COLUMNS, "outbox") + " WHERE result = ?"
_SELECT_FILE = select_statement(_FILE_COLUMNS, "kept_files") + " WHERE seq = ?"
_SELECT_NEWEST_PASSED = """
    SELECT r.seq, r.id FROM kept_files k JOIN results r ON r.seq = k.seq WHERE k.capability = ? AND k.seq != ?
"""
# A tick sends the same bytes to every orchestrator. Only so many of its results are searched: that takes a millisecond.
_SELECT_SAME_REQUEST = """
    SELECT r.seq, r.id FROM (
        SELECT seq, id, pipeline, model, kind, outcome FROM results WHERE tick = ? ORDER BY seq DESC LIMIT 3000
    ) r WHERE r.pipeline = ? AND r.model = ? AND r.kind = ? AND r.outcome = 'passed'
        AND EXISTS (SELECT 1 FROM kept_files k WHERE k.seq = r.seq) LIMIT 1
"""
_SELECT_CONTENT = """
    SELECT k.content_type, k.content FROM kept_files k JOIN results r ON r.seq = k.seq WHERE r.id = ?
"""


@dataclass(frozen=True, slots=True)
class KeptFile:
    """What is known of a received file that was made small; `size` and `original_size` in bytes.

    `sha256`, `width` and `height` (pixels) and `seconds` are the original's, and 0 where they mean nothing.
    """

    content_type: str
    sha256: str
    size: int
    original_size: int
    width: int
    height: int
    seconds: float
    kept_at: float


@dataclass(frozen=True, slots=True)
class FullResult:
    """One result, its details as plain values, what came back, and the stat that was made of it; None for none.

    `reference` is the id of a pass whose received file shows what a failure should have brought: that of another
    orchestrator that got the same request, else the capability's newest; empty if there is none, and for a pass.
    `reference_file` is that file.
    """

    result: ResultRow
    details: Mapping[str, Any]
    received: KeptFile | None
    reference: str
    reference_file: KeptFile | None
    stat: OutboxEntry | None


class FullResults:
    """Reads what the page of one result shows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, job_id: str) -> FullResult | None:
        """Return the result of a job with everything about it, None if there is none."""

        def work(db: sqlite3.Connection) -> FullResult | None:
            row = db.execute(_SELECT_RESULT, (job_id,)).fetchone()
            if row is None:
                return None
            result = ResultRow.from_sql(row[1:])
            seq, reference = _find_reference(db, result) if result.outcome == "failed" else (0, "")
            return FullResult(
                result,
                orjson.loads(row[0]),
                _read_file(db, result.seq),
                reference,
                _read_file(db, seq) if reference else None,
                _read_stat(db, job_id),
            )

        return await self._database.read(work)

    async def received_file(self, job_id: str) -> tuple[str, bytes] | None:
        """Return content type and content of what came back for a job, made small; None if nothing is kept."""
        rows = await self._database.read_rows(_SELECT_CONTENT, (job_id,))
        return rows[0] if rows else None


def _find_reference(db: sqlite3.Connection, failed: ResultRow) -> tuple[int, str]:
    key = CapabilityKey(failed.orchestrator, failed.service_uri, failed.pipeline, failed.model, failed.kind)
    row = db.execute(_SELECT_SAME_REQUEST, (failed.tick, failed.pipeline, failed.model, failed.kind)).fetchone()
    row = row or db.execute(_SELECT_NEWEST_PASSED, (orjson.dumps(list(key)).decode(), failed.seq)).fetchone()
    return row if row is not None else (0, "")


def _read_file(db: sqlite3.Connection, seq: int) -> KeptFile | None:
    row = db.execute(_SELECT_FILE, (seq,)).fetchone()
    return KeptFile(*row) if row is not None else None


def _read_stat(db: sqlite3.Connection, job_id: str) -> OutboxEntry | None:
    """Return the outbox entry of a result; None if it has none, or one that retention has deleted."""
    row = db.execute(_SELECT_STAT, (job_id,)).fetchone()
    if row is None:
        return None
    values = dict(zip(_STAT_COLUMNS, row, strict=True))
    return OutboxEntry(**values | {"maybe_double": bool(values["maybe_double"])})
