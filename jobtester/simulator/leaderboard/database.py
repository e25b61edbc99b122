"""The database behind the simulated Leaderboard: locks, slow commits and queries that fail, as PostgreSQL has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from jobtester.simulator.leaderboard.faults import Faults

Commit = Callable[[], None]
TIMED_OUT = "timeout: context deadline exceeded"


class Statements:
    """Statements on the table of stats. They live in the database: stopping the server does not end them."""

    def __init__(self) -> None:
        """Begin with an unlocked table."""
        self._queue: list[tuple[Commit, asyncio.Event]] = []
        self._unlocked = asyncio.Event()
        self._unlocked.set()
        self._failed_reads = 0

    def follow(self, faults: Faults) -> None:
        """Take or release the lock as `faults` say. On release, what waits is committed in the order of its asking."""
        self._failed_reads = 0
        if faults.locked:
            self._unlocked.clear()
            return
        self._unlocked.set()
        waiting, self._queue = self._queue, []
        for commit, committed in waiting:
            commit()
            committed.set()

    async def insert(self, faults: Faults, commit: Commit) -> str:
        """Run an insert; return the driver's error, empty if it is committed.

        One that waits for the lock is ended by the server's time limit. Where the server is stopped first, nobody ends
        it: it commits when the lock is released. A commit that takes longer than the time limit is not undone.
        """
        if faults.locked:
            committed = asyncio.Event()
            place = (commit, committed)
            self._queue.append(place)
            try:
                await asyncio.wait_for(committed.wait(), faults.db_timeout_s)
            except TimeoutError:
                self._queue.remove(place)
                return TIMED_OUT
            return ""
        if faults.slow_commit_s:
            asyncio.get_running_loop().call_later(faults.slow_commit_s, commit)
            await asyncio.sleep(min(faults.slow_commit_s, faults.db_timeout_s) + 0.001)
            return TIMED_OUT if faults.slow_commit_s > faults.db_timeout_s else ""
        commit()
        return ""

    async def read(self, faults: Faults) -> Literal["rows", "empty", "error"]:
        """Run a query; return what the server makes of it.

        The first that fails is answered `{}`, since the server does not look at the error that ends its rows; those
        after it are answered 500.
        """
        limit_s = min(faults.db_timeout_s, faults.statement_timeout_s or faults.db_timeout_s)
        if faults.locked:
            try:
                await asyncio.wait_for(self._unlocked.wait(), limit_s)
            except TimeoutError:
                return self._failed()
        await asyncio.sleep(min(faults.slow_reads_s, limit_s))
        return "rows" if faults.slow_reads_s < limit_s else self._failed()

    def _failed(self) -> Literal["empty", "error"]:
        self._failed_reads += 1
        return "empty" if self._failed_reads == 1 else "error"
