"""Keep a journal of the sessions that are reserved at live runners, until each is known to be stopped."""

from __future__ import annotations

from dataclasses import dataclass

from jobtester.store.database import Database, select_statement


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session that may be open. Its fields are the columns of the table.

    `control_url` is empty until it is known. `opened_at` is when it was about to be reserved, in Unix seconds;
    `stop_rounds` counts how often stopping it later on has failed.
    """

    job: str
    service_uri: str
    runner_url: str
    control_url: str
    opened_at: float
    stop_rounds: int = 0


_COLUMNS = tuple(SessionRow.__dataclass_fields__)
_SELECT = select_statement(_COLUMNS, "runner_sessions") + " ORDER BY opened_at LIMIT ?"
_INSERT = "INSERT INTO runner_sessions VALUES (?, ?, ?, ?, ?, ?)"
_SET_CONTROL_URL = "UPDATE runner_sessions SET control_url = ? WHERE job = ?"
_COUNT_ROUND = "UPDATE runner_sessions SET stop_rounds = stop_rounds + 1 WHERE job = ?"
_DELETE = "DELETE FROM runner_sessions WHERE job = ?"
_MAX_ROWS = 10_000


class RunnerSessions:
    """Records which sessions may be open. Each method returns when the change is on the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, row: SessionRow) -> None:
        """Record that a session is about to be reserved."""
        values = (row.job, row.service_uri, row.runner_url, row.control_url, row.opened_at, row.stop_rounds)
        await self._database.write(lambda db: db.execute(_INSERT, values))

    async def set_control_url(self, job: str, control_url: str) -> None:
        """Record where a session is stopped."""
        await self._database.write(lambda db: db.execute(_SET_CONTROL_URL, (control_url, job)))

    async def count_stop_round(self, job: str) -> None:
        """Record that a session that was left open could not be stopped."""
        await self._database.write(lambda db: db.execute(_COUNT_ROUND, (job,)))

    async def end(self, job: str) -> None:
        """Forget a session: it is stopped, was never open, or cannot be stopped."""
        await self._database.write(lambda db: db.execute(_DELETE, (job,)))

    async def open_sessions(self) -> list[SessionRow]:
        """Return the sessions that may be open, oldest first."""
        return [SessionRow(*row) for row in await self._database.read_rows(_SELECT, (_MAX_ROWS,))]
