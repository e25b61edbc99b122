"""Ticks: when each ran, and its report."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import orjson

from jobtester.store.database import Database


@dataclass(frozen=True, slots=True)
class TickRow:
    """A tick as it is kept; times in Unix seconds."""

    id: str
    started_at: float
    finished_at: float | None
    seed: int
    trigger: str
    state: str
    report: dict[str, Any]


class Ticks:
    """Keeps ticks."""

    def __init__(self, database: Database) -> None:
        """Work on an open database."""
        self._database = database

    async def start(self, tick: str, started_at: float, seed: int, trigger: str) -> None:
        """Note that a tick has begun."""
        row = (tick, started_at, seed, trigger)
        await self._database.write(
            lambda db: db.execute(
                "INSERT INTO ticks (id, started_at, seed, trigger, state) VALUES (?, ?, ?, ?, 'running')", row
            )
        )

    async def finish(self, tick: str, state: str, finished_at: float, report: dict[str, Any]) -> None:
        """Note how a tick ended; one that failed before it was noted is noted now."""
        row = (
            tick,
            report["started_at"],
            finished_at,
            report["seed"],
            report["trigger"],
            state,
            orjson.dumps(report).decode(),
        )
        await self._database.write(
            lambda db: db.execute(
                "INSERT INTO ticks (id, started_at, finished_at, seed, trigger, state, report) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET finished_at = excluded.finished_at, state = excluded.state,"
                " report = excluded.report",
                row,
            )
        )

    async def abandon_unfinished(self, now: float) -> int:
        """Mark ticks that an earlier process left running as aborted; give how many."""
        return await self._database.write(
            lambda db: (
                db.execute(
                    "UPDATE ticks SET state = 'aborted', finished_at = ? WHERE state = 'running'", (now,)
                ).rowcount
            )
        )

    async def get(self, tick: str) -> TickRow | None:
        """Give one tick, None if there is none of this id; `last` names the newest."""

        def work(db: sqlite3.Connection) -> tuple[Any, ...] | None:
            if tick == "last":
                found = db.execute(f"{_SELECT} ORDER BY started_at DESC LIMIT 1").fetchone()
            else:
                found = db.execute(f"{_SELECT} WHERE id = ?", (tick,)).fetchone()
            return found  # type: ignore[no-any-return]

        row = await self._database.read(work)
        return _tick_row(row) if row is not None else None

    async def newest(self, limit: int, before: float | None = None) -> list[TickRow]:
        """Give ticks, newest first, that began before an instant."""
        rows = await self._database.read(
            lambda db: db.execute(
                f"{_SELECT} WHERE started_at < ? ORDER BY started_at DESC LIMIT ?",
                (before if before is not None else 1e18, limit),
            ).fetchall()
        )
        return [_tick_row(row) for row in rows]


_SELECT = "SELECT id, started_at, finished_at, seed, trigger, state, report FROM ticks"


def _tick_row(row: tuple[Any, ...]) -> TickRow:
    values = dict(zip(TickRow.__dataclass_fields__, row, strict=True))
    return TickRow(**values | {"report": orjson.loads(values["report"])})
