"""Reserve sessions of persistent live runners, and stop each whatever happens (docs/live-runner.md)."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import aiohttp
import orjson
import structlog

from jobtester.crash_boundary import CrashBoundary
from jobtester.domain.exchanges import Ending, Exchange, OutgoingRequest
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import is_same_origin, is_usable_url, parse_endpoint
from jobtester.domain.untrusted_text import clean_name
from jobtester.errors import StoreError
from jobtester.live_runner.client import LiveRunnerClient
from jobtester.live_runner.payment import JobPayment
from jobtester.live_runner.signer import Challenge
from jobtester.metrics import Metrics
from jobtester.store.runner_sessions import RunnerSessions, SessionRow

log = structlog.get_logger()

RESERVE_S = 10.0  # a reservation takes less than a second
_MAX_RESERVE_BYTES = 256 * 1024
_STOP_TIMEOUT_S = 2.0
_STOP_PAUSES_S = (0.0, 0.3, 1.0)
_STOP_TOTAL_S = 5.0
_MAX_STOP_BYTES = 4_096
_MAX_STOP_ROUNDS = 20
_MAX_AGE_S = 24 * 3600.0
_PARALLEL = 32
_NOT_FOUND = b"runner session not found"
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(slots=True)
class RunnerSession:
    """One session, or the attempt to reserve it. Work is sent below `app_url` while `is_open`.

    `reserve` is the reservation's exchange. `control_url` is where it is stopped, empty while unknown. `refuted` says
    which URL is not at the service URI, so that nothing is sent there; `problem` why the tester did not reserve.
    """

    job: Job
    reserve: Exchange | None = None
    app_url: str = ""
    control_url: str = ""
    refuted: str = ""
    problem: str = ""
    is_reserving: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the orchestrator has reserved it and the tester may use it."""
        return bool(self.app_url)

    @property
    def session_s(self) -> float:
        """How long the reservation took, in seconds."""
        return self.reserve.round_trip_s if self.reserve is not None else 0.0

    @property
    def may_be_open(self) -> bool:
        """Whether the orchestrator may keep a slot for it: it has answered so, or its answer was lost."""
        if self.is_reserving or self.reserve is None:
            return self.is_reserving
        if self.reserve.ending is Ending.ANSWERED:
            return self.reserve.status is not None and 200 <= self.reserve.status < 300
        return self.reserve.ending not in (Ending.REFUSED, Ending.WITHDRAWN)


@dataclass(slots=True)
class SessionKeeper:
    """Reserves sessions, one for each runner at a time, and keeps the journal by which none is forgotten.

    A session that is not stopped keeps its slot for ever. So a row is in the store before the reservation, it has the
    control URL before anything else is sent, and it goes when the orchestrator has confirmed the stop.
    """

    client: LiveRunnerClient
    journal: RunnerSessions
    metrics: Metrics
    max_session_s: float = 300.0
    clock: Callable[[], float] = time.time
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _active: set[str] = field(default_factory=set)
    _left_over: asyncio.Task[None] | None = None
    _stopping: set[asyncio.Task[Any]] = field(default_factory=set)

    @asynccontextmanager
    async def reserve(self, job: Job, payment: JobPayment) -> AsyncIterator[RunnerSession]:
        """Reserve a session for a job, and stop it at the end of the block, however that is left.

        Never raises for what the network does: the session says whether it is open. The block ends with TimeoutError
        when the session has been reserved for too long.
        """
        runner = job.capability.runner
        assert runner is not None
        session = RunnerSession(job)
        async with self._lock(runner.url):
            self._active.add(job.id)
            try:
                async with asyncio.timeout(self.max_session_s):
                    await self._reserve(session, runner.url, payment)
                    yield session
            finally:
                # The stop goes on even if the job that waits for it is canceled; close() waits for it.
                stopping = self._start(self._end(session), "session stop")
                await asyncio.shield(stopping)

    def start_stopping_left_over(self) -> asyncio.Task[None]:
        """Begin to stop, in the background, every session of the journal that no running job holds."""
        if self._left_over is None or self._left_over.done():
            self._left_over = self._start(self._stop_left_over(), "sessions left over")
        return self._left_over

    async def stop_left_over(self) -> None:
        """Stop what was left open; after a few seconds the rest goes on in the background."""
        await asyncio.wait({self.start_stopping_left_over()}, timeout=_STOP_TOTAL_S)

    async def _stop_left_over(self) -> None:
        with CrashBoundary(self.metrics.count_internal_error).unit("cleanup"), _logging_store_errors():
            rows = [row for row in await self.journal.open_sessions() if row.job not in self._active]
            by_origin: defaultdict[tuple[str, int] | None, list[SessionRow]] = defaultdict(list)
            for row in rows:
                by_origin[parse_endpoint(row.service_uri)].append(row)
            slots = asyncio.Semaphore(_PARALLEL)
            if rows:
                log.info("runner_sessions_left_open", sessions=len(rows))
            await asyncio.gather(*(self._stop_rows(group, slots) for group in by_origin.values()))
        await self._export()

    async def close(self) -> None:
        """Wait for the stops that still run; each ends after a few seconds at most."""
        while self._stopping:
            await asyncio.wait(set(self._stopping))

    def _start(self, work: Any, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        return task

    def _lock(self, url: str) -> asyncio.Lock:
        lock = self._locks.get(url)
        if lock is None:
            lock = self._locks[url] = asyncio.Lock()
        return lock

    async def _reserve(self, session: RunnerSession, url: str, payment: JobPayment) -> None:
        job = session.job
        try:
            await self.journal.begin(SessionRow(job.id, job.target.service_uri, url, "", self.clock()))
        except StoreError as error:  # what could not be found again is not reserved
            session.problem = str(error)
            return
        await self._export()

        async def send(headers: Any) -> Exchange:
            session.is_reserving = True  # stays so if this is canceled
            request = OutgoingRequest(url, b"", job.id, RESERVE_S, _MAX_RESERVE_BYTES, headers=headers)
            session.reserve = await self.client.send(request)
            session.is_reserving = False
            return session.reserve

        async def on_challenge(challenge: Challenge) -> None:
            # Where a session is paid for is below where it is stopped: so it can be stopped even if the answer to the
            # paid reservation is lost.
            if challenge.payment_url.endswith("/payment"):
                session.control_url = challenge.payment_url.removesuffix("/payment")
                await self.journal.set_control_url(job.id, session.control_url)

        try:
            session.reserve = await payment.send(send, on_challenge)
            self._read_answer(session, url)
            if session.control_url and session.may_be_open:
                await self.journal.set_control_url(job.id, session.control_url)
        except StoreError as error:
            session.app_url, session.problem = "", str(error)

    def _read_answer(self, session: RunnerSession, runner_url: str) -> None:
        """Set the session's URLs from the reservation's answer, where they are at the orchestrator's own origin."""
        exchange = session.reserve
        if exchange is None or not exchange.gateway_reports_success:
            return
        try:
            values = orjson.loads(exchange.body)
        except orjson.JSONDecodeError:
            return
        if not isinstance(values, dict):
            return
        service_uri = session.job.target.service_uri
        app_url, control_url = (clean_name(values.get(name)) for name in ("app_url", "control_url"))
        for url in filter(None, (app_url, control_url)):
            if not is_same_origin(url, service_uri):
                session.refuted = f"direct: the session's URL {url[:200]} is not at {service_uri}; nothing was sent"
        if is_usable_url(control_url) and is_same_origin(control_url, service_uri):
            session.control_url = control_url.rstrip("/")
        elif _SESSION_ID.fullmatch(str(values.get("session_id"))):
            session.control_url = f"{runner_url}/{values['session_id']}"  # the orchestrator's own place for it
        if not session.refuted and session.control_url and is_usable_url(app_url):
            session.app_url = app_url.rstrip("/")

    async def _end(self, session: RunnerSession) -> None:
        job = session.job
        try:
            outcome = "unused"
            if session.may_be_open:
                outcome = "unknown"
                if session.control_url:
                    outcome = "stopped" if await self._stop(session.control_url) else "left_open"
            with _logging_store_errors():  # its row stays, and the next start finds the session stopped
                await self._settle(job.id, outcome, job.target.service_uri)
        finally:
            self._active.discard(job.id)

    async def _settle(self, job: str, outcome: str, service_uri: str) -> None:
        """Keep the row of a session that is still to be stopped, and forget every other."""
        if outcome != "unused":
            self.metrics.runner_sessions.labels(outcome).inc()
        if outcome in ("unknown", "abandoned"):
            log.error(f"runner_session_{outcome}", job=job, service_uri=service_uri)
        if outcome == "left_open":
            log.warning("runner_session_left_open", job=job, service_uri=service_uri)
            await self.journal.count_stop_round(job)
        else:
            await self.journal.end(job)
        await self._export()

    async def _stop_rows(self, rows: Iterable[SessionRow], slots: asyncio.Semaphore) -> None:
        """Stop the sessions of one orchestrator, for a few seconds at most."""
        async with slots:
            stopped: set[str] = set()

            async def stop(row: SessionRow) -> None:
                async with self._lock(row.runner_url):  # the next reservation finds the slot free
                    if row.control_url and await self._stop(row.control_url):
                        stopped.add(row.job)

            tasks = [asyncio.create_task(stop(row), name="session stop") for row in rows]
            _, late = await asyncio.wait(tasks, timeout=_STOP_TOTAL_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for row in rows:
            if row.job in stopped:
                outcome = "stopped"
            elif not row.control_url:
                outcome = "unknown"
            else:
                is_old = row.stop_rounds >= _MAX_STOP_ROUNDS or self.clock() - row.opened_at > _MAX_AGE_S
                outcome = "abandoned" if is_old else "left_open"
            await self._settle(row.job, outcome, row.service_uri)

    async def _stop(self, control_url: str) -> bool:
        """Ask the orchestrator to stop a session, several times if need be; return True if it confirms that."""
        try:
            async with asyncio.timeout(_STOP_TOTAL_S):
                for pause_s in _STOP_PAUSES_S:
                    await asyncio.sleep(pause_s)
                    try:
                        status, body = await self.client.post(
                            f"{control_url}/stop", headers={}, timeout_s=_STOP_TIMEOUT_S, max_bytes=_MAX_STOP_BYTES
                        )
                    except (OSError, TimeoutError, ValueError, aiohttp.ClientError):
                        continue
                    if 200 <= status < 300 or (status == 404 and body.strip() == _NOT_FOUND):
                        return True
        except TimeoutError:
            pass
        return False

    async def _export(self) -> None:
        try:
            self.metrics.runner_sessions_open.set(len(await self.journal.open_sessions()))
        except StoreError as error:
            log.debug("runner_sessions_not_counted", problem=str(error))


@contextmanager
def _logging_store_errors() -> Iterator[None]:
    """Go on although the journal cannot be written, e.g. because the disk is full."""
    try:
        yield
    except StoreError as error:
        log.warning("runner_session_not_recorded", problem=str(error))
