"""Delete what is older than store.keep in small steps, and return the space to the disk."""

from __future__ import annotations

import sqlite3

from jobtester.store.database import Database
from jobtester.store.kept_files import DELETE_BEYOND, DELETE_ORPHANS
from jobtester.store.results import REPEAT_S

# Small batches, so that results and stats are written in between.
_BATCH = 500
_PAGES = 256

_DELETE_SETTLED = """
    DELETE FROM outbox WHERE seq IN (
        SELECT seq FROM outbox
        WHERE settled_at < ? AND state IN ('delivered', 'refused', 'expired', 'dropped') LIMIT ?
    )
"""
# A result stays as long as the outbox has its stat: what has not been settled at the Leaderboard is never deleted.
_DELETE_RESULTS = """
    DELETE FROM results WHERE seq IN (
        SELECT seq FROM results WHERE recorded_at < ? AND id NOT IN (SELECT result FROM outbox) LIMIT ?
    )
"""
_DELETE_RECEIVED = """
    DELETE FROM received WHERE rowid IN (
        SELECT rowid FROM received WHERE received_at < ? AND id NOT IN (SELECT result FROM outbox) LIMIT ?
    )
"""
_DELETE_TICKS = "DELETE FROM ticks WHERE started_at < ? AND id NOT IN (SELECT tick FROM results)"
_DELETE_LATEST = "DELETE FROM latest WHERE seq NOT IN (SELECT seq FROM results)"
_DELETE_RUNNERS = "DELETE FROM live_runners WHERE listed_at < ?"
_DELETE_SKIPS = "DELETE FROM skips WHERE until < ?"
_COUNT_FREE_PAGES = "PRAGMA freelist_count"
_SHRINK = f"PRAGMA incremental_vacuum({_PAGES})"


class Retention:
    """Deletes old rows, but never a stat that has not been settled, nor its result."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, *, keep_s: float, now: float, max_files_size: int = 2**62) -> int:
        """Delete what is older than `keep_s` seconds, shrink the file, and return the number of deleted results.

        Of the kept files the oldest are deleted too, until they have `max_files_size` bytes.
        """
        horizon = now - keep_s
        await self._delete(_DELETE_SETTLED, horizon)
        results = await self._delete(_DELETE_RESULTS, horizon)
        await self._delete(DELETE_ORPHANS, now)
        await self._delete(DELETE_BEYOND, max_files_size)
        await self._delete(_DELETE_RECEIVED, min(horizon, now - REPEAT_S))  # the last day's recognize repeats
        await self._database.write(lambda db: _delete_rest(db, horizon))
        while await self._database.write(_shrink):
            pass
        return results

    async def _delete(self, statement: str, bound: float) -> int:
        total = 0
        while deleted := await self._database.write(lambda db: db.execute(statement, (bound, _BATCH)).rowcount):
            total += deleted
        return total


def _delete_rest(db: sqlite3.Connection, horizon: float) -> None:
    db.execute(_DELETE_TICKS, (horizon,))
    db.execute(_DELETE_LATEST)
    db.execute(_DELETE_RUNNERS, (horizon,))
    db.execute(_DELETE_SKIPS, (horizon,))


def _shrink(db: sqlite3.Connection) -> bool:
    """Shrink the file a little, and return True if it can shrink further."""
    (before,) = db.execute(_COUNT_FREE_PAGES).fetchone()
    db.execute(_SHRINK).fetchall()
    (after,) = db.execute(_COUNT_FREE_PAGES).fetchone()
    return 0 < int(after) < int(before)
