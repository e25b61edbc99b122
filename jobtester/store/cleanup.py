"""Clean-up: what is older than store.keep goes, a little at a time, and its room is given back."""

from __future__ import annotations

import sqlite3

from jobtester.store.database import Database

_BATCH = 500
_PAGES = 256


class Cleanup:
    """Deletes old rows; never what has not been settled at the Leaderboard."""

    def __init__(self, database: Database) -> None:
        """Work on an open database."""
        self._database = database

    async def run(self, *, keep_s: float, now: float) -> int:
        """Delete what is older than `keep_s` seconds and give how many results that were."""
        horizon, total = now - keep_s, 0
        while deleted := await self._database.write(lambda db: _results(db, horizon)):
            total += deleted
        await self._database.write(lambda db: _rest(db, horizon))
        if total:
            await self._database.write(lambda db: db.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall())
        return total


def _results(db: sqlite3.Connection, horizon: float) -> int:
    """Delete one batch of old results whose stat, if any, is settled."""
    db.execute(
        "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE settled_at < ?"
        " AND state IN ('delivered', 'refused', 'expired', 'dropped') LIMIT ?)",
        (horizon, _BATCH),
    )
    return db.execute(
        "DELETE FROM results WHERE seq IN (SELECT seq FROM results WHERE recorded_at < ?"
        " AND id NOT IN (SELECT result FROM outbox) LIMIT ?)",
        (horizon, _BATCH),
    ).rowcount


def _rest(db: sqlite3.Connection, horizon: float) -> None:
    db.execute("DELETE FROM received WHERE received_at < ?", (horizon,))
    db.execute("DELETE FROM ticks WHERE started_at < ? AND id NOT IN (SELECT tick FROM results)", (horizon,))
    db.execute("DELETE FROM latest WHERE seq NOT IN (SELECT seq FROM results)")
