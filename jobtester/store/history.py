"""Read the history of one orchestrator from one index, so that a month of results is read quickly."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from jobtester.domain.history import Event, Observation, find_events
from jobtester.store.database import Database

_MAX_ROWS = 50_000
# All columns are in the index results_history; the rows themselves, which are large, stay on the disk.
_SELECT = """
    SELECT seq, started_at, service_uri, pipeline, model, kind, warm, outcome, round_trip_s, estimated_price_wei
    FROM results WHERE orchestrator = ? AND started_at >= ? ORDER BY started_at DESC LIMIT ?
"""
_SELECT_DETAILS = "SELECT id, reason, message FROM results WHERE seq = ?"


@dataclass(frozen=True, slots=True)
class EventRow:
    """A failure or recovery with the id, reason and message of its result."""

    event: Event
    id: str
    reason: str
    message: str


class History:
    """Reads what one orchestrator's results were over time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def observations(self, orchestrator: str, since: float) -> list[Observation]:
        """Return the results that started from an instant (Unix seconds) on, oldest first; at most 50,000."""
        return await self._database.read(lambda db: _read_observations(db, orchestrator, since))

    async def events(self, orchestrator: str, since: float, limit: int = 50) -> list[EventRow]:
        """Return the newest failures and recoveries since an instant, newest first."""

        def work(db: sqlite3.Connection) -> list[EventRow]:
            events = find_events(_read_observations(db, orchestrator, since))[-limit:]
            rows = [(event, db.execute(_SELECT_DETAILS, (event.observation.seq,)).fetchone()) for event in events]
            # Retention may delete results between the two queries.
            return [EventRow(event, *row) for event, row in reversed(rows) if row is not None]

        return await self._database.read(work)


def _read_observations(db: sqlite3.Connection, orchestrator: str, since: float) -> list[Observation]:
    rows = db.execute(_SELECT, (orchestrator, since, _MAX_ROWS)).fetchall()
    return [Observation(*row) for row in reversed(rows)]
