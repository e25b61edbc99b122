"""Stop the sessions of the journal: those that end, and those that were left open before."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import structlog

from jobtester.crash_boundary import CrashBoundary
from jobtester.domain.orchestrators import parse_endpoint
from jobtester.errors import StoreError
from jobtester.live_runner.client import LiveRunnerClient
from jobtester.live_runner.session_stop import (
    SETTLING_S,
    STOP_TOTAL_S,
    StopResult,
    has_ended,
    is_given_up,
    is_young,
    stop_session,
)
from jobtester.metrics import Metrics
from jobtester.store.runner_sessions import RunnerSessions, SessionRow

log = structlog.get_logger()

_PARALLEL = 32


@dataclass(slots=True)
class SessionStopper:
    """Stops sessions, and keeps the row of each in the journal until its orchestrator has confirmed that.

    `active` are the jobs whose sessions are in use, which nobody else stops. Who works with the sessions of a runner
    holds its lock.
    """

    client: LiveRunnerClient
    journal: RunnerSessions
    metrics: Metrics
    clock: Callable[[], float] = time.time
    active: set[str] = field(default_factory=set)
    is_closing: asyncio.Event = field(default_factory=asyncio.Event)
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _left_over: asyncio.Task[None] | None = None
    _running: set[asyncio.Task[Any]] = field(default_factory=set)
    _is_waiting: bool = False

    def start_stopping_left_over(self) -> asyncio.Task[None]:
        """Begin to stop, in the background, every session of the journal that no running job holds."""
        if self._left_over is None or self._left_over.done():
            self._left_over = self.start(self._stop_left_over(), "sessions left over")
        return self._left_over

    async def stop_left_over(self) -> None:
        """Stop what was left open; after a few seconds the rest goes on in the background."""
        await asyncio.wait({self.start_stopping_left_over()}, timeout=STOP_TOTAL_S)

    async def _stop_left_over(self) -> None:
        with CrashBoundary(self.metrics.count_internal_error).unit("cleanup"), logging_store_errors():
            rows = await self._rows_left_over()
            if rows:
                log.info("runner_sessions_left_open", sessions=len(rows))
            await self._stop_side_by_side(rows)
        await self.export()

    async def _stop_left_over_later(self) -> None:
        """Ask once more for sessions that orchestrators do not know, when they are old enough to be sure of that."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.is_closing.wait(), SETTLING_S)
            return
        self._is_waiting = False
        await self.start_stopping_left_over()

    async def close(self) -> None:
        """Wait for the stops that still run; each ends after a few seconds at most."""
        self.is_closing.set()
        while self._running:
            await asyncio.wait(set(self._running))

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run work that close() waits for."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def lock(self, url: str) -> asyncio.Lock:
        """Return the lock of a runner, which is held by who works with its sessions."""
        lock = self._locks.get(url)
        if lock is None:
            lock = self._locks[url] = asyncio.Lock()
        return lock

    def age_s(self, row: SessionRow) -> float:
        """Return how long ago a session was reserved, in seconds; below zero where the clock was set since."""
        return self.clock() - row.opened_at

    async def _rows_left_over(self) -> list[SessionRow]:
        return [row for row in await self.journal.open_sessions() if row.job not in self.active]

    async def settle(self, row: SessionRow, outcome: str) -> None:
        """Keep the row of a session that is still to be stopped, and forget every other."""
        if outcome != "unused":
            self.metrics.runner_sessions.labels(outcome).inc()
        if outcome in ("unknown", "abandoned"):
            log.error(f"runner_session_{outcome}", job=row.job, service_uri=row.service_uri)
        if outcome == "left_open":
            log.warning("runner_session_left_open", job=row.job, service_uri=row.service_uri)
            await self.journal.count_stop_round(row.job)
        else:
            await self.journal.end(row.job)
        await self.export()

    async def _stop_side_by_side(self, rows: Iterable[SessionRow]) -> None:
        by_origin: defaultdict[tuple[str, int] | None, list[SessionRow]] = defaultdict(list)
        for row in rows:
            by_origin[parse_endpoint(row.service_uri)].append(row)
        slots = asyncio.Semaphore(_PARALLEL)
        await asyncio.gather(*(self._stop_rows(group, slots) for group in by_origin.values()))

    async def _stop_rows(self, rows: Iterable[SessionRow], slots: asyncio.Semaphore) -> None:
        """Stop the sessions of one orchestrator, for a few seconds at most."""

        async def stop(row: SessionRow) -> None:
            async with self.lock(row.runner_url):  # the next reservation finds the slot free
                # A job may have stopped it meanwhile.
                if row.job in {left.job for left in await self._rows_left_over()}:
                    await self.stop_row(row)

        async with slots:
            await asyncio.gather(*(stop(row) for row in rows))

    async def stop_row(self, row: SessionRow) -> bool:
        """Stop a session of the journal; return True if it needs no further attempt."""
        age_s = self.age_s(row)
        if not row.control_url:
            outcome = "unknown"
        else:
            result = await stop_session(self.client, row.control_url)
            self.ask_later(result, age_s)
            outcome = "abandoned" if is_given_up(row, age_s=age_s) else "left_open"
            if has_ended(result, age_s=age_s):
                outcome = "stopped"
        await self.settle(row, outcome)
        return outcome != "left_open"

    def ask_later(self, result: StopResult, age_s: float) -> None:
        """Ask once more for a session that is not known, and too young to be sure that it has ended."""
        if result not in (StopResult.STOPPED, StopResult.FAILED) and is_young(age_s) and not self._is_waiting:
            self._is_waiting = True
            self.start(self._stop_left_over_later(), "sessions to ask for later")

    async def export(self) -> None:
        """Export how many sessions may be open."""
        try:
            self.metrics.runner_sessions_open.set(len(await self.journal.open_sessions()))
        except StoreError as error:
            log.debug("runner_sessions_not_counted", problem=str(error))


@contextmanager
def logging_store_errors() -> Iterator[None]:
    """Go on although the journal cannot be written, e.g. because the disk is full."""
    try:
        yield
    except StoreError as error:
        log.warning("runner_session_not_recorded", problem=str(error))
