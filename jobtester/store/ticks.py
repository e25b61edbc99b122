"""Record when each tick ran, and its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from jobtester.store.database import Database, select_statement


@dataclass(frozen=True, slots=True)
class TickRow:
    """A recorded tick. Its fields are the columns of the table; times are Unix seconds."""

    id: str
    started_at: float
    finished_at: float | None
    seed: int
    trigger: str
    state: str
    report: dict[str, Any]


_COLUMNS = tuple(TickRow.__dataclass_fields__)
_SELECT = select_statement(_COLUMNS, "ticks")
_SELECT_ONE = f"{_SELECT} WHERE id = ?"
_SELECT_LAST = f"{_SELECT} ORDER BY started_at DESC LIMIT 1"
_SELECT_NEWEST = f"{_SELECT} WHERE started_at < ? AND started_at >= ? ORDER BY started_at DESC LIMIT ?"
_INSERT = "INSERT INTO ticks (id, started_at, seed, trigger, state) VALUES (?, ?, ?, ?, 'running')"
# The tick may be missing: the disk can be full when it starts, and have room when it ends.
_FINISH = """
    INSERT INTO ticks (id, started_at, finished_at, seed, trigger, state, report) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET finished_at = excluded.finished_at, state = excluded.state, report = excluded.report
"""
_ABANDON = "UPDATE ticks SET state = 'aborted', finished_at = ? WHERE state = 'running'"


class Ticks:
    """Records ticks and returns them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self, tick: str, started_at: float, seed: int, trigger: str) -> None:
        """Record that a tick has started."""
        await self._database.write(lambda db: db.execute(_INSERT, (tick, started_at, seed, trigger)))

    async def finish(self, tick: str, state: str, finished_at: float, report: dict[str, Any]) -> None:
        """Record how a tick ended, also one whose start was not recorded."""
        text = orjson.dumps(report).decode()
        row = (tick, report["started_at"], finished_at, report["seed"], report["trigger"], state, text)
        await self._database.write(lambda db: db.execute(_FINISH, row))

    async def abandon_unfinished(self, now: float) -> int:
        """Mark ticks that an earlier process left running as aborted, and return their number."""
        return await self._database.write(lambda db: db.execute(_ABANDON, (now,)).rowcount)

    async def get(self, tick: str) -> TickRow | None:
        """Return the tick with an id, or the newest for `last`; None if there is none."""
        rows = await self._database.read_rows(*(_SELECT_LAST, ()) if tick == "last" else (_SELECT_ONE, (tick,)))
        return _tick_row(rows[0]) if rows else None

    async def newest(self, limit: int, before: float | None = None, *, since: float | None = None) -> list[TickRow]:
        """Return ticks that started before an instant and not before `since`, newest first."""
        values = (before if before is not None else 1e18, since if since is not None else 0.0, limit)
        rows = await self._database.read_rows(_SELECT_NEWEST, values)
        return [_tick_row(row) for row in rows]


def _tick_row(row: tuple[Any, ...]) -> TickRow:
    values = dict(zip(_COLUMNS, row, strict=True))
    return TickRow(**values | {"report": orjson.loads(values["report"])})
