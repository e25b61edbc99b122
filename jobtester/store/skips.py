"""Record what ticks skipped and why, as spans of time in which nothing changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from jobtester.domain.orchestrators import CapabilityKind
from jobtester.domain.plan import Skip
from jobtester.store.database import Database, select_statement

_MAX_RECORDED = 20_000  # of one tick: discovery is from outside, and its names are free


@dataclass(frozen=True, slots=True)
class SkipRow:
    """A skipped capability with the start of the first and the last tick in a row that skipped it, in Unix seconds.

    `pipeline` is empty where the orchestrator is skipped as a whole, `note` is what the operator wrote about it. The
    fields are the columns of the table.
    """

    orchestrator: str
    service_uri: str
    pipeline: str
    model: str
    kind: str
    reason: str
    since: float
    until: float
    note: str = ""


_COLUMNS = tuple(SkipRow.__dataclass_fields__)
_SELECT = select_statement(_COLUMNS, "skips")
_ORDER = "ORDER BY orchestrator, service_uri, pipeline, model, kind, reason LIMIT ?"
_SELECT_AT = f"{_SELECT} WHERE since <= ? AND until >= ? {_ORDER}"
# A failed or canceled tick may have skipped nothing because it planned nothing.
_SELECT_NEWEST_TICK = (
    "SELECT max(started_at) FROM ticks WHERE started_at < ? AND state IN ('running', 'finished', 'suspect')"
)
_SELECT_CURRENT = f"{_SELECT} WHERE until >= ? {_ORDER}"
_CURRENT_AFTER = """
    WHERE until >= :newest AND orchestrator IN (
        SELECT DISTINCT orchestrator FROM skips
        WHERE until >= :newest AND orchestrator > :after AND :pipeline IN ('', pipeline) ORDER BY 1 LIMIT :limit
    ) AND :pipeline IN ('', pipeline) ORDER BY orchestrator, service_uri, pipeline, model, kind, reason
"""
_SELECT_CURRENT_OF_ONE = f"{_SELECT} WHERE orchestrator = ? AND until >= ? {_ORDER}"
_EXTEND = """
    UPDATE skips SET until = ?, note = ?
    WHERE orchestrator = ? AND service_uri = ? AND pipeline = ? AND model = ? AND kind = ? AND reason = ? AND until >= ?
"""
_INSERT = "INSERT OR REPLACE INTO skips VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Skips:
    """Records the skips of each tick and returns them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, skips: Iterable[Skip], at: float) -> None:
        """Record what the tick that started at `at` (Unix seconds) skips."""
        notes = dict(islice(((_key(skip), skip.note) for skip in skips), _MAX_RECORDED))

        def work(db: sqlite3.Connection) -> None:
            # Skips seldom change. To extend the span of the tick before keeps a month of ticks as small as one.
            before = db.execute(_SELECT_NEWEST_TICK, (at,)).fetchone()[0]
            for key, note in notes.items():
                if before is None or not db.execute(_EXTEND, (at, note, *key, before)).rowcount:
                    db.execute(_INSERT, (*key, at, at, note))

        await self._database.write(work)

    async def at(self, moment: float, limit: int = 1000) -> list[SkipRow]:
        """Return what the tick that started at `moment` skipped, at most `limit`, in a fixed order."""
        return [SkipRow(*row) for row in await self._database.read_rows(_SELECT_AT, (moment, moment, limit))]

    async def current(self, orchestrator: str = "", limit: int = 1000) -> list[SkipRow]:
        """Return what the newest tick skipped, of one orchestrator or of all, at most `limit`, in a fixed order."""

        def work(db: sqlite3.Connection) -> list[SkipRow]:
            newest = db.execute(_SELECT_NEWEST_TICK, (1e18,)).fetchone()[0]
            if newest is None:
                return []
            if orchestrator:
                rows = db.execute(_SELECT_CURRENT_OF_ONE, (orchestrator, newest, limit))
            else:
                rows = db.execute(_SELECT_CURRENT, (newest, limit))
            return [SkipRow(*row) for row in rows]

        return await self._database.read(work)

    async def current_after(self, after: str, limit: int, pipeline: str = "") -> list[SkipRow]:
        """Return what the newest tick skipped of at most `limit` orchestrators with addresses after one, by address."""

        def work(db: sqlite3.Connection) -> list[SkipRow]:
            newest = db.execute(_SELECT_NEWEST_TICK, (1e18,)).fetchone()[0]
            values = {"newest": newest, "after": after, "limit": limit, "pipeline": pipeline}
            return [] if newest is None else [SkipRow(*row) for row in db.execute(_SELECT + _CURRENT_AFTER, values)]

        return await self._database.read(work)


def _key(skip: Skip) -> tuple[str, ...]:
    kind = skip.capability.kind if skip.capability is not None else CapabilityKind.BATCH
    return (skip.orchestrator, skip.service_uri, skip.pipeline, skip.model, kind.value, skip.reason)
