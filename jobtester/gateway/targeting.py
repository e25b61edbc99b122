"""Make a gateway use one given orchestrator: by webhook lease, query or BYOC header."""

from __future__ import annotations

import asyncio
import base64
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from jobtester.domain.attempts import UNKNOWN_ATTEMPTS, AttemptPattern, Attempts
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Orchestrator
from jobtester.gateway.attempt_classifier import classify_by_questions, classify_by_time
from jobtester.gateway.client import GatewayClient
from jobtester.gateway.lease import Lease, LeasedJob

_BYOC_PREFIX = "/process/request"
_BYOC_HANG_UP_AFTER_S = 15.0  # hanging up first would cost the orchestrator a slot for ever (docs/pipelines.md)


@dataclass(frozen=True, slots=True)
class TargetingResult:
    """What targeting itself says of a job that has ended: who served it, and how far the gateway's attempts came.

    `was_overlapped` means that the lease named somebody else while the job was in flight: then only proof counts.
    """

    attribution: Attribution
    attempts: Attempts = UNKNOWN_ATTEMPTS
    was_overlapped: bool = False


class JobLease(Protocol):
    """Holds one orchestrator for one job: what the request has to carry, and what its exchange says afterwards."""

    @property
    def query(self) -> Mapping[str, str]:
        """Return the parameters of the request's query."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers of the request."""
        ...

    def finish(self, exchange: Exchange) -> TargetingResult:
        """End the lease with the job's exchange; called once, inside the block of acquire()."""
        ...


class Targeting(Protocol):
    """One way to name an orchestrator: `async with targeting.acquire(job) as lease:`, and inside it the job is sent."""

    @property
    def kind(self) -> str:
        """Return the way's name: webhook, query or byoc."""
        ...

    def acquire(self, job: Job) -> AbstractAsyncContextManager[JobLease]:
        """Wait until the job may be sent, and keep its orchestrator named until the block is left."""
        ...

    def release(self) -> None:
        """Name nobody, since there is no job to send for now."""
        ...


@dataclass(frozen=True, slots=True)
class QueryLease:
    """Names the orchestrator in the request's query; only the time of the answer says how the attempts went."""

    query: Mapping[str, str]
    retry_window_s: float
    headers: Mapping[str, str] = field(default_factory=dict)

    def finish(self, exchange: Exchange) -> TargetingResult:
        """Read from the time that the answer took how far the attempts came."""
        line = f"query: orchestrator={self.query['orchestrator']}"
        attempts = classify_by_time(exchange, self.retry_window_s)
        return TargetingResult(Attribution(AttributionKind.PRESUMED, (line,)), attempts)


@dataclass(frozen=True, slots=True)
class ByocLease:
    """Names the orchestrator in the request's `Livepeer` header."""

    service_uri: str
    headers: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)

    def finish(self, exchange: Exchange) -> TargetingResult:  # noqa: ARG002 - the header alone decides who is asked
        """Presume that the orchestrator in the header was asked: the gateway asks nobody else."""
        line = f"header: orchestrators.include = [{self.service_uri}]"
        return TargetingResult(Attribution(AttributionKind.PRESUMED, (line,)))


class QueryTargeting:
    """Names the orchestrator in each job's own query; jobs need not know of each other."""

    kind = "query"

    def __init__(self, retry_window_s: float = 2.0) -> None:
        """Target through a gateway that tries again for `retry_window_s` seconds."""
        self._retry_window_s = retry_window_s

    @asynccontextmanager
    async def acquire(self, job: Job) -> AsyncIterator[JobLease]:
        """Name the orchestrator by `?orchestrator=`, for BYOC by header."""
        if job.capability.byoc:
            yield ByocLease(job.target.service_uri, byoc_headers(job))
        else:
            yield QueryLease({"orchestrator": job.target.service_uri}, self._retry_window_s)

    def release(self) -> None:
        """Do nothing: nobody is named between jobs."""


class ByocTargeting:
    """Names the orchestrator in the job's `Livepeer` header; works on any gateway."""

    kind = "byoc"

    @asynccontextmanager
    async def acquire(self, job: Job) -> AsyncIterator[JobLease]:
        """Name the orchestrator by `orchestrators.include`."""
        yield ByocLease(job.target.service_uri, byoc_headers(job))

    def release(self) -> None:
        """Do nothing: nobody is named between jobs."""


class WebhookTargeting:
    """Names the orchestrator in the webhook's answer while a lease lasts; the gateway asks, we answer."""

    kind = "webhook"

    def __init__(self, lease: Lease, client: GatewayClient, *, first_question_s: float) -> None:
        """Target through `client`'s gateway; a job after which it asks nothing for `first_question_s` is canceled."""
        self.lease = lease
        self._client = client
        self._first_question_s = first_question_s
        self._turn = asyncio.Lock()
        self._lease_changed = asyncio.Event()

    @asynccontextmanager
    async def acquire(self, job: Job) -> AsyncIterator[JobLease]:
        """Name the orchestrator by the lease; BYOC jobs carry their header besides.

        The header alone is not enough there, since the webhook feeds the gateway's candidates for BYOC jobs too.
        """
        async with self._turn:
            await self._hold_lease(job.orchestrator)
            leased = self.lease.on_sent(job.id, time.monotonic())
        job_lease = WebhookLease(self.lease, leased, job, byoc_headers(job) if job.capability.byoc else {})
        timer = None
        if not job.capability.byoc:  # a BYOC job makes the gateway ask only where its list is out of date
            timer = asyncio.get_running_loop().call_later(self._first_question_s, self._cancel_unasked, job.id)
        try:
            yield job_lease
        finally:
            if timer is not None:
                timer.cancel()
            job_lease.end()
            self._lease_changed.set()

    def answer_webhook(self) -> tuple[Orchestrator, ...]:
        """Answer the gateway's question whom to use now."""
        named = self.lease.answer_webhook(time.monotonic())
        self._lease_changed.set()
        return named

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
        leased = self.lease.jobs.get(job_id)
        if leased is not None and leased.questions == 0:
            self._client.sender.cancel(
                job_id, Ending.TIMEOUT, f"the gateway did not ask whom to use within {self._first_question_s:g} s"
            )


class WebhookLease:
    """One job's hold on a webhook gateway's lease."""

    def __init__(self, lease: Lease, leased: LeasedJob, job: Job, headers: Mapping[str, str]) -> None:
        self.query: Mapping[str, str] = {}
        self.headers = headers
        self._lease = lease
        self._leased = leased
        self._job = job
        self._is_ended = False

    def finish(self, exchange: Exchange) -> TargetingResult:
        """Read from the gateway's questions during the job whether it followed, and how far its attempts came."""
        self.end(gateway_may_continue=exchange.gateway_may_continue)
        leased, is_byoc = self._leased, self._job.capability.byoc
        has_asked = self._lease.claim_questions(leased)
        attempts = UNKNOWN_ATTEMPTS if is_byoc else self._classify(exchange)
        if exchange.tries_exhausted or attempts.never_reached:
            # The count is that of a job that was served: tries that reach nobody may ask only twice. What tells a
            # gateway that chose from what it remembered is then the pattern of its questions.
            has_asked = attempts.pattern is not AttemptPattern.NOT_FOLLOWING
        attribution = self._attribution(has_asked or is_byoc, is_counted=exchange.tries_exhausted and not is_byoc)
        return TargetingResult(attribution, attempts, leased.was_overlapped)

    def end(self, *, gateway_may_continue: bool = True) -> None:
        """Return the lease, once; a job without an exchange leaves a gateway behind that may still be asking."""
        if not self._is_ended:
            self._is_ended = True
            self._lease.on_ended(self._job.id, time.monotonic(), disconnected=gateway_may_continue)

    def _classify(self, exchange: Exchange) -> Attempts:
        leased = self._leased
        if leased.questions and (leased.was_overlapped or not leased.was_alone):
            line = f"the gateway asked {leased.questions} times, also for other jobs"
            return Attempts(AttemptPattern.UNCLEAR, 0, line)
        return classify_by_questions(
            leased.question_times,
            is_answered=exchange.gateway_reports_success,
            tries_exhausted=exchange.tries_exhausted,
            gateway_may_continue=exchange.gateway_may_continue,
        )

    def _attribution(self, has_asked: bool, *, is_counted: bool) -> Attribution:
        """Return what the questions show; `is_counted` means that the line on the attempts has their number."""
        count, needed = self._leased.questions, self._lease.timing.min_asks
        if has_asked and not count:
            line = f"webhook: {self._job.target.service_uri} was named; an external capability needs no question"
            return Attribution(AttributionKind.PRESUMED, (line,))
        if has_asked:
            times = "" if is_counted else f" {count} times ({needed} or more are expected)"
            line = f"webhook: the gateway asked the tester{times} whom to use, and got {self._job.target.service_uri}"
            return Attribution(AttributionKind.PRESUMED, (line,))
        line = f"webhook: the gateway asked {count} times, so it chose from what it remembered"
        return Attribution(AttributionKind.MISSING, (line,))


def webhook_entries(orchestrators: Sequence[Orchestrator]) -> list[dict[str, object]]:
    """Return orchestrators in the form that a gateway's -orchWebhookUrl expects."""
    return [{"address": orchestrator.service_uri, "score": 1.0} for orchestrator in orchestrators]


def byoc_headers(job: Job) -> dict[str, str]:
    """Return the `Livepeer` header of a BYOC job; both inner objects travel as texts, as the gateway wants them."""
    parameters = {"orchestrators": {"include": [job.target.service_uri], "exclude": []}}
    content = {
        "request": "{}",
        "parameters": orjson.dumps(parameters).decode(),
        "capability": job.pipeline,
        "timeout_seconds": byoc_worker_seconds(job.timeout_s),
    }
    return {"Livepeer": base64.b64encode(orjson.dumps(content)).decode()}


def byoc_worker_seconds(timeout_s: float) -> int:
    """Return the whole seconds that a BYOC worker has, at least one."""
    return max(1, math.ceil(timeout_s))


def byoc_timeout_s(timeout_s: float) -> float:
    """Return how long the tester waits for a BYOC job, in seconds: always longer than the worker may take."""
    return byoc_worker_seconds(timeout_s) + _BYOC_HANG_UP_AFTER_S


def request_path(job: Job, path: str) -> str:
    """Return the path at the gateway of a job whose pipeline has this path."""
    return _BYOC_PREFIX + path if job.capability.byoc else path


def answer_timeout_s(job: Job) -> float:
    """Return how long a gateway's answer to a job is waited for, in seconds."""
    return byoc_timeout_s(job.timeout_s) if job.capability.byoc else job.timeout_s
