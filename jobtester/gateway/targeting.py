"""Targeting: making a gateway use one given orchestrator, in whichever way it can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from jobtester.domain.attempts import UNKNOWN_ATTEMPTS, AttemptPattern, Attempts
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Orchestrator
from jobtester.gateway.attempt_classifier import classify_by_questions, classify_by_time
from jobtester.gateway.byoc import byoc_header
from jobtester.gateway.client import GatewayClient
from jobtester.gateway.lease import Lease, LeasedJob


@dataclass(slots=True)
class JobLease:
    """What a job's request has to carry; told of the exchange, it knows what targeting itself says of who served.

    `overlapped` means that the lease named somebody else while the job was in the air: then only proof counts.
    """

    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    exchange: Exchange | None = None
    attribution: Attribution = Attribution(AttributionKind.PRESUMED)  # noqa: RUF009 - an immutable value
    was_overlapped: bool = False
    attempts: Attempts = UNKNOWN_ATTEMPTS


class Targeting(Protocol):
    """One way to aim: `async with targeting.aim(job) as aim:`, and inside it the job is sent."""

    @property
    def kind(self) -> str:
        """Give the way's name: webhook, query or byoc."""
        ...

    def acquire(self, job: Job) -> AbstractAsyncContextManager[JobLease]:
        """Wait until the job may be sent, and keep its orchestrator named until the block is left."""
        ...

    def release(self) -> None:
        """Take note that there is no job to send for now."""
        ...


class QueryTargeting:
    """Names the orchestrator in each job's own query; jobs need not know of each other."""

    kind = "query"

    def __init__(self, retry_window_s: float = 2.0) -> None:
        """Aim at a gateway that tries again for `retry_window_s` seconds."""
        self._retry_window_s = retry_window_s

    @asynccontextmanager
    async def acquire(self, job: Job) -> AsyncIterator[JobLease]:
        """Aim by `?orchestrator=`, for BYOC by header."""
        if job.capability.byoc:
            async with ByocTargeting().acquire(job) as aim:
                yield aim
            return
        line = f"query: orchestrator={job.target.service_uri}"
        aim = JobLease(
            {"orchestrator": job.target.service_uri}, attribution=Attribution(AttributionKind.PRESUMED, (line,))
        )
        yield aim
        if aim.exchange is not None:
            aim.attempts = classify_by_time(aim.exchange, self._retry_window_s)

    def release(self) -> None:
        """Do nothing: nobody is named between jobs."""


class ByocTargeting:
    """Names the orchestrator in the job's `Livepeer` header; works on any gateway."""

    kind = "byoc"

    @asynccontextmanager
    async def acquire(self, job: Job) -> AsyncIterator[JobLease]:
        """Aim by `orchestrators.include`."""
        uri = job.target.service_uri
        line = f"header: orchestrators.include = [{uri}]"
        header = byoc_header(job.pipeline, uri, job.timeout_s)
        yield JobLease(headers=header, attribution=Attribution(AttributionKind.PRESUMED, (line,)))

    def release(self) -> None:
        """Do nothing: nobody is named between jobs."""


class WebhookTargeting:
    """Names the orchestrator in the webhook's answer while a lease lasts; the gateway asks, we answer."""

    kind = "webhook"

    def __init__(self, lease: Lease, client: GatewayClient, *, first_question_s: float) -> None:
        """Aim through `client`'s gateway; one that does not ask within `first_ask_s` of a job gets no longer."""
        self.lease = lease
        self._client = client
        self._first_ask_s = first_question_s
        self._turn = asyncio.Lock()
        self._lease_changed = asyncio.Event()

    @asynccontextmanager
    async def acquire(self, job: Job) -> AsyncIterator[JobLease]:
        """Aim by the lease; BYOC jobs need their header besides, since the webhook feeds their candidates too."""
        async with self._turn:
            await self._hold_lease(job.orchestrator)
            flight = self.lease.on_sent(job.id, time.monotonic())
        aim = JobLease(
            headers=byoc_header(job.pipeline, job.target.service_uri, job.timeout_s) if job.capability.byoc else {}
        )
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._first_ask_s, self._cancel_unasked, job.id) if not job.capability.byoc else None
        try:
            yield aim
        finally:
            if timer is not None:
                timer.cancel()
            gone = aim.exchange is None or aim.exchange.gateway_may_continue
            self.lease.on_ended(job.id, time.monotonic(), disconnected=gone)
            asked = self.lease.claim_questions(flight)
            aim.was_overlapped = flight.was_overlapped
            if not job.capability.byoc and aim.exchange is not None:
                aim.attempts = _attempts(flight, aim.exchange)
            if aim.exchange is not None and (aim.exchange.tries_exhausted or aim.attempts.never_reached):
                asked = aim.attempts.pattern is not AttemptPattern.NOT_FOLLOWING
            aim.attribution = _by_asking(asked or job.capability.byoc, flight.questions, job)
            self._lease_changed.set()

    def answer_webhook(self) -> tuple[Orchestrator, ...]:
        """Answer the gateway's question whom to use now."""
        found = self.lease.answer_webhook(time.monotonic())
        self._lease_changed.set()
        return found

    def release(self) -> None:
        """Name nobody until there is a job again."""
        self.lease.release(time.monotonic())

    async def _hold_lease(self, orchestrator: Orchestrator) -> None:
        """Wait until the lease may name this orchestrator, and let it."""
        while True:
            now = time.monotonic()
            ready = self.lease.ready_at(orchestrator, now)
            if ready is not None and ready <= now:
                self.lease.grant(orchestrator, now)
                return
            self._lease_changed.clear()
            try:
                async with asyncio.timeout(None if ready is None else ready - now):
                    await self._lease_changed.wait()
            except TimeoutError:
                continue

    def _cancel_unasked(self, job_id: str) -> None:
        flight = self.lease.jobs.get(job_id)
        if flight is not None and flight.questions == 0:
            self._client.cancel(
                job_id, Ending.TIMEOUT, f"the gateway did not ask whom to use within {self._first_ask_s:g} s"
            )


def _attempts(flight: LeasedJob, exchange: Exchange) -> Attempts:
    """Return what the questions of one job say; nothing where another job's may be among them."""
    if flight.questions and (flight.was_overlapped or not flight.was_alone):
        return Attempts(AttemptPattern.UNCLEAR, 0, f"the gateway asked {flight.questions} times, also for other jobs")
    return classify_by_questions(
        flight.question_times,
        is_answered=exchange.gateway_reports_success,
        tries_exhausted=exchange.tries_exhausted,
        gateway_may_continue=exchange.gateway_may_continue,
    )


def _by_asking(asked: bool, asks: int, job: Job) -> Attribution:
    if asked:
        return Attribution(
            AttributionKind.PRESUMED, (f"webhook: asked {asks} times while {job.target.service_uri} was named",)
        )
    return Attribution(
        AttributionKind.MISSING, (f"webhook: the gateway asked {asks} times, so it chose from what it remembered",)
    )


def webhook_entries(orchestrators: Sequence[Orchestrator]) -> list[dict[str, object]]:
    """Put orchestrators into the form that a gateway's -orchWebhookUrl expects."""
    return [{"address": one.service_uri, "score": 1.0} for one in orchestrators]
