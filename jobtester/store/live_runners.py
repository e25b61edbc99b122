"""Record which live runners orchestrators have listed, and for how many ticks each has been in its state."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import fields

from jobtester.domain.runner_status import RunnerStatus
from jobtester.store.database import Database, insert_statement, select_statement

_COLUMNS = tuple(column.name for column in fields(RunnerStatus))
_SELECT = select_statement(_COLUMNS, "live_runners")
_SELECT_ALL = f"{_SELECT} ORDER BY orchestrator, service_uri, app, version"
_SELECT_ONE_ORCHESTRATOR = f"{_SELECT} WHERE orchestrator = ? ORDER BY service_uri, app, version"
_DELETE_ALL = "DELETE FROM live_runners"
_INSERT = insert_statement("live_runners", _COLUMNS)


class LiveRunners:
    """Holds the status of every live runner after the newest tick."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, orchestrator: str = "") -> list[RunnerStatus]:
        """Return the live runners of one orchestrator, or of all, in a fixed order."""
        statement, values = (_SELECT_ONE_ORCHESTRATOR, (orchestrator,)) if orchestrator else (_SELECT_ALL, ())
        rows = [dict(zip(_COLUMNS, row, strict=True)) for row in await self._database.read_rows(statement, values)]
        # Prices exceed SQLite's 64-bit integers, so they are stored as text.
        return [
            RunnerStatus(**row | {"price_wei": None if row["price_wei"] is None else int(row["price_wei"])})
            for row in rows
        ]

    async def replace(self, statuses: Sequence[RunnerStatus]) -> None:
        """Store these in place of all earlier ones, in one transaction."""
        rows = [
            {name: getattr(status, name) for name in _COLUMNS}
            | {"price_wei": None if status.price_wei is None else str(status.price_wei)}
            for status in statuses
        ]

        def work(db: sqlite3.Connection) -> None:
            db.execute(_DELETE_ALL)
            db.executemany(_INSERT, rows)

        await self._database.write(work)
