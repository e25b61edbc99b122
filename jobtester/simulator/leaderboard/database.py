"""The database behind the simulated Leaderboard: locks, slow commits and queries that fail, as PostgreSQL has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from jobtester.simulator.leaderboard.faults import Faults

Commit = Callable[[], None]
TIMED_OUT = "timeout: context deadline exceeded"


class StatsTable:
    """The table of stats. Its statements run in the database, so that stopping the server does not end them."""

    def __init__(self) -> None:
        self._waiting_inserts: list[tuple[Commit, asyncio.Event]] = []
        self._unlocked = asyncio.Event()
        self._unlocked.set()
        self._failed_reads = 0

    def apply_faults(self, faults: Faults) -> None:
        """Lock or unlock the table as `faults` say.

        On release the waiting inserts commit in the order in which they queued, as PostgreSQL grants its locks: a post
        whose client gave up long ago may then commit before one that was sent again, and both rows are there.
        """
        self._failed_reads = 0
        if faults.locked:
            self._unlocked.clear()
            return
        self._unlocked.set()
        waiting, self._waiting_inserts = self._waiting_inserts, []
        for commit, committed in waiting:
            commit()
            committed.set()

    async def insert(self, faults: Faults, commit: Commit) -> str:
        """Run an insert and return the driver's error, empty if it is committed.

        The server's time limit ends an insert that waits for the lock. If the server is stopped before, nothing ends
        the insert: it commits when the lock is released. A commit that exceeds the time limit is not undone.
        """
        if faults.locked:
            committed = asyncio.Event()
            insert = (commit, committed)
            self._waiting_inserts.append(insert)
            try:
                await asyncio.wait_for(committed.wait(), faults.db_timeout_s)
            except TimeoutError:
                self._waiting_inserts.remove(insert)
                return TIMED_OUT
            return ""
        if faults.slow_commit_s:
            asyncio.get_running_loop().call_later(faults.slow_commit_s, commit)
            await asyncio.sleep(min(faults.slow_commit_s, faults.db_timeout_s) + 0.001)
            return TIMED_OUT if faults.slow_commit_s > faults.db_timeout_s else ""
        commit()
        return ""

    async def read(self, faults: Faults) -> Literal["rows", "empty", "error"]:
        """Run a query and return what the server makes of it.

        The first query that fails yields `{}`, since the server ignores the error that ends its rows. Later ones yield
        500.
        """
        limit_s = min(faults.db_timeout_s, faults.statement_timeout_s or faults.db_timeout_s)
        if faults.locked:
            try:
                await asyncio.wait_for(self._unlocked.wait(), limit_s)
            except TimeoutError:
                return self._fail_read()
        await asyncio.sleep(min(faults.slow_reads_s, limit_s))
        return "rows" if faults.slow_reads_s < limit_s else self._fail_read()

    def _fail_read(self) -> Literal["empty", "error"]:
        self._failed_reads += 1
        return "empty" if self._failed_reads == 1 else "error"
