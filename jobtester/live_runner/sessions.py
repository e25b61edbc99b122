"""Reserve sessions of persistent live runners, and stop each whatever happens (docs/live-runner.md)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from jobtester.domain.exchanges import Ending, Exchange, OutgoingRequest
from jobtester.domain.jobs import Job
from jobtester.domain.reasons import Verdict
from jobtester.errors import StoreError
from jobtester.gateway.job_sender import describe_request
from jobtester.live_runner.client import LiveRunnerClient
from jobtester.live_runner.payment import JobPayment
from jobtester.live_runner.session import RunnerSession
from jobtester.live_runner.session_stop import STOP_TOTAL_S, StopResult, has_ended, stop_session
from jobtester.live_runner.session_stopper import SessionStopper, logging_store_errors
from jobtester.live_runner.signer import Challenge
from jobtester.store.runner_sessions import RunnerSessions, SessionRow

RESERVE_S = 10.0  # a reservation takes less than a second
_LATE_S = 60.0  # how long an answer that comes too late is waited for, so that its session can be stopped
_MAX_RESERVE_BYTES = 256 * 1024
_MAX_LEFT_OPEN = 20  # sessions that one orchestrator may have left open before nothing more is reserved there


@dataclass(slots=True)
class SessionKeeper:
    """Reserves sessions, one for each runner at a time, and keeps the journal by which none is forgotten.

    A session that is not stopped keeps its slot for ever. So a row is in the store before the reservation, it has the
    control URL before anything else is sent, and it goes when the orchestrator has confirmed the stop.
    """

    client: LiveRunnerClient
    journal: RunnerSessions
    stopper: SessionStopper
    max_session_s: float = 300.0
    reserve_s: float = RESERVE_S

    @asynccontextmanager
    async def reserve(self, job: Job, payment: JobPayment) -> AsyncIterator[RunnerSession]:
        """Reserve a session for a job, and stop it at the end of the block, however that is left.

        Never raises for what the network does: the session says whether it is open. The block ends with TimeoutError
        when the session has been reserved for too long.
        """
        runner = job.capability.runner
        assert runner is not None
        session = RunnerSession(job)
        async with self.stopper.lock(runner.url):
            session.problem = await self._find_obstacle(job, runner.url)
            if session.problem is not None:
                yield session
                return
            self.stopper.active.add(job.id)
            row = SessionRow(job.id, job.target.service_uri, runner.url, "", self.stopper.clock())
            try:
                async with asyncio.timeout(self.max_session_s):
                    await self._reserve(session, row, payment)
                    yield session
            finally:
                # The stop goes on even if the job that waits for it is canceled; close() waits for it. What has no
                # answer yet is waited for in the background.
                ending = self.stopper.start(self._end(session, row), "session stop")
                if not session.is_answer_pending:
                    await asyncio.shield(ending)

    async def _find_obstacle(self, job: Job, url: str) -> Verdict | None:
        """Return why no session is reserved: an earlier one is not stopped, or the journal cannot be read."""
        try:
            rows = [row for row in await self.journal.open_sessions() if row.service_uri == job.target.service_uri]
            for row in rows:
                if row.runner_url == url and (row.job in self.stopper.active or not await self.stopper.stop_row(row)):
                    return Verdict.from_code("session_left_open")
        except StoreError as error:
            return Verdict.from_code("tester_fault", str(error))
        if sum(row.job not in self.stopper.active for row in rows) >= _MAX_LEFT_OPEN:
            message = f"{_MAX_LEFT_OPEN} sessions at this orchestrator could not be stopped, so no other was reserved."
            return Verdict.from_code("session_left_open", message)
        return None

    async def _reserve(self, session: RunnerSession, row: SessionRow, payment: JobPayment) -> None:
        job, url = session.job, row.runner_url
        try:
            await self.journal.begin(row)
        except StoreError as error:  # what could not be found again is not reserved
            session.problem = Verdict.from_code("tester_fault", str(error))
            return
        await self.stopper.export()

        async def send(headers: Mapping[str, str]) -> Exchange:
            request = OutgoingRequest(
                url, b"", job.id, _LATE_S, _MAX_RESERVE_BYTES, headers=headers, outlives_abort=True,
                is_follow_up=session.reserve is not None,
            )  # fmt: skip
            session.sending = asyncio.create_task(self.client.send(request), name="session reservation")
            limit_s = max(0.0, self.reserve_s - payment.challenge_s)
            session.reserve = await self._wait_for_answer(session.sending, request, limit_s)
            return session.reserve

        async def on_challenge(challenge: Challenge) -> None:
            # Where a session is paid for is below where it is stopped: so it can be stopped even if the answer to the
            # paid reservation is lost.
            if challenge.payment_url.endswith("/payment"):
                session.control_url = challenge.payment_url.removesuffix("/payment")
                await self.journal.set_control_url(job.id, session.control_url)

        try:
            session.read_answer(await payment.send(send, on_challenge), url)
            if session.control_url and session.may_be_open:
                await self.journal.set_control_url(job.id, session.control_url)
        except StoreError as error:
            session.app_url, session.problem = "", Verdict.from_code("tester_fault", str(error))

    async def _wait_for_answer(
        self, sending: asyncio.Task[Exchange], request: OutgoingRequest, limit_s: float
    ) -> Exchange:
        """Return a reservation's exchange, or one that ended after `limit_s`; the request itself goes on then."""
        started_at, started = self.stopper.clock(), time.monotonic()
        while True:
            sent_at = self.client.sender.sent_at(request)
            remaining_s = self.reserve_s if sent_at is None else sent_at + limit_s - time.monotonic()
            if remaining_s > 0:
                done, _ = await asyncio.wait({sending}, timeout=remaining_s)
                if done:
                    return sending.result()
                continue
            detail = f"no complete answer within {self.reserve_s:g} s"
            return Exchange(
                Ending.TIMEOUT, started_at, sent_at or started, time.monotonic(), detail=detail,
                request=describe_request(request),
            )  # fmt: skip

    async def _end(self, session: RunnerSession, row: SessionRow) -> None:
        """Stop a session if it may be open; what has no answer yet is waited for until then."""
        try:
            sending = session.sending
            if sending is not None and not sending.done():
                await self._wait_for_late_answer(sending)
            if sending is not None and sending.done() and not sending.cancelled() and not session.is_open:
                session.read_answer(sending.result(), row.runner_url)
                if session.control_url and session.may_be_open:
                    with logging_store_errors():
                        await self.journal.set_control_url(row.job, session.control_url)
            with logging_store_errors():  # its row stays, and the next start finds the session stopped
                await self._stop_and_settle(session, row)
        finally:
            self.stopper.active.discard(row.job)

    async def _wait_for_late_answer(self, sending: asyncio.Task[Exchange]) -> None:
        """Wait for the answer to a reservation; when the tester stops, for a few seconds only."""
        closing = asyncio.create_task(self.stopper.is_closing.wait(), name="closing")
        await asyncio.wait({sending, closing}, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        _, late = await asyncio.wait({sending}, timeout=STOP_TOTAL_S)
        if late:
            sending.cancel()
            await asyncio.wait({sending})

    async def _stop_and_settle(self, session: RunnerSession, row: SessionRow) -> None:
        is_unanswered = session.sending is not None and session.sending.cancelled()
        if not session.may_be_open and not is_unanswered:
            await self.stopper.settle(row, "unused")
            return
        if not session.control_url:
            await self.stopper.settle(row, "unknown")
            return
        result = await stop_session(self.client, session.control_url)
        age_s = self.stopper.age_s(row)
        is_lost = session.is_reserved and result is StopResult.UNKNOWN_SESSION
        if is_lost or has_ended(result, age_s=age_s):
            await self.stopper.settle(row, "stopped")
            return
        await self.stopper.settle(row, "left_open")
        self.stopper.ask_later(result, age_s)
