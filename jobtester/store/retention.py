"""Clean-up: what is older than store.keep goes, a little at a time, and its room is given back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from jobtester.store.database import Database
from jobtester.store.results import REPEAT_S

_BATCH = 500
_PAGES = 256


class Retention:
    """Deletes old rows; never what has not been settled at the Leaderboard."""

    def __init__(self, database: Database) -> None:
        """Work on an open database."""
        self._database = database

    async def run(self, *, keep_s: float, now: float) -> int:
        """Delete what is older than `keep_s` seconds, give the room back, and tell how many results that were."""
        horizon = now - keep_s
        await self._all(_entries, horizon)
        total = await self._all(_results, horizon)
        await self._all(_received, min(horizon, now - REPEAT_S))  # by them a repeat is known
        await self._database.write(lambda db: _rest(db, horizon))
        while await self._database.write(_shrink):
            pass
        return total

    async def _all(self, delete: Callable[[sqlite3.Connection, float], int], horizon: float) -> int:
        """Delete batch after batch, so that others may write in between; give how many rows."""
        total = 0
        while deleted := await self._database.write(lambda db: delete(db, horizon)):
            total += deleted
        return total


def _entries(db: sqlite3.Connection, horizon: float) -> int:
    """Forget one batch of stats that have been settled for long."""
    return db.execute(
        "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE settled_at < ?"
        " AND state IN ('delivered', 'refused', 'expired', 'dropped') LIMIT ?)",
        (horizon, _BATCH),
    ).rowcount


def _results(db: sqlite3.Connection, horizon: float) -> int:
    """Delete one batch of old results whose stat, if any, has been forgotten."""
    return db.execute(
        "DELETE FROM results WHERE seq IN (SELECT seq FROM results WHERE recorded_at < ?"
        " AND id NOT IN (SELECT result FROM outbox) LIMIT ?)",
        (horizon, _BATCH),
    ).rowcount


def _received(db: sqlite3.Connection, horizon: float) -> int:
    """Delete one batch of other testers' old results in the same way."""
    return db.execute(
        "DELETE FROM received WHERE rowid IN (SELECT rowid FROM received WHERE received_at < ?"
        " AND id NOT IN (SELECT result FROM outbox) LIMIT ?)",
        (horizon, _BATCH),
    ).rowcount


def _rest(db: sqlite3.Connection, horizon: float) -> None:
    db.execute("DELETE FROM ticks WHERE started_at < ? AND id NOT IN (SELECT tick FROM results)", (horizon,))
    db.execute("DELETE FROM latest WHERE seq NOT IN (SELECT seq FROM results)")


def _shrink(db: sqlite3.Connection) -> bool:
    """Give a little room back to the disk; tell whether there is more to give."""
    before = _free(db)
    db.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
    return 0 < _free(db) < before


def _free(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA freelist_count").fetchone()[0])
