"""Keep what came back of failures and of each capability's newest pass, small and bounded."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result
from jobtester.store.database import insert_statement

_COLUMNS = (
    "seq", "capability", "kept_at", "content_type", "sha256", "size", "original_size", "width", "height", "seconds",
    "content",
)  # fmt: skip
# The newest pass of a capability replaces the one before.
_INSERT = insert_statement("kept_files", _COLUMNS).replace("INSERT", "INSERT OR REPLACE", 1)
DELETE_ORPHANS = """
    DELETE FROM kept_files WHERE seq IN (
        SELECT k.seq FROM kept_files k WHERE k.kept_at < ? AND NOT EXISTS (SELECT 1 FROM results r WHERE r.seq = k.seq)
        LIMIT ?
    )
"""
DELETE_BEYOND = """
    DELETE FROM kept_files WHERE seq IN (
        SELECT seq FROM (SELECT seq, sum(size) OVER (ORDER BY kept_at DESC, seq DESC) AS total FROM kept_files)
        WHERE total > ? LIMIT ?
    )
"""


def kept_file_values(result: Result, now: float) -> dict[str, Any] | None:
    """Return the row of a result's received file, without its `seq`; None if it has none."""
    file = result.details.received
    if file is None:
        return None
    is_pass = result.verdict.outcome is Outcome.PASSED
    return {
        "capability": orjson.dumps(list(result.job.key)).decode() if is_pass else None,
        "kept_at": now,
        "content_type": file.content_type,
        "sha256": file.sha256,
        "size": len(file.content),
        "original_size": file.original_size,
        "width": file.width,
        "height": file.height,
        "seconds": file.seconds,
        "content": file.content,
    }


def insert_kept_file(db: sqlite3.Connection, seq: int, values: dict[str, Any]) -> None:
    """Keep the file of the result with this `seq`."""
    db.execute(_INSERT, {**values, "seq": seq})
