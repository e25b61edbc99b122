"""Targeting: making a gateway use one given orchestrator, in whichever way it can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from jobtester.domain.attempts import UNKNOWN, Attempts, Pattern
from jobtester.domain.attribution import Attribution, Kind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Orchestrator
from jobtester.gateway import answer_time, byoc, questions
from jobtester.gateway.client import Client
from jobtester.gateway.lease import Flight, Lease


@dataclass(slots=True)
class Aim:
    """What a job's request has to carry; told of the exchange, it knows what targeting itself says of who served.

    `overlapped` means that the lease named somebody else while the job was in the air: then only proof counts.
    """

    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    exchange: Exchange | None = None
    attribution: Attribution = Attribution(Kind.PRESUMED)  # noqa: RUF009 - an immutable value
    overlapped: bool = False
    attempts: Attempts = UNKNOWN


class Targeting(Protocol):
    """One way to aim: `async with targeting.aim(job) as aim:`, and inside it the job is sent."""

    @property
    def kind(self) -> str:
        """Give the way's name: webhook, query or byoc."""
        ...

    def aim(self, job: Job) -> AbstractAsyncContextManager[Aim]:
        """Wait until the job may be sent, and keep its orchestrator named until the block is left."""
        ...

    def rest(self) -> None:
        """Take note that there is no job to send for now."""
        ...


class Query:
    """Names the orchestrator in each job's own query; jobs need not know of each other."""

    kind = "query"

    def __init__(self, retry_window_s: float = 2.0) -> None:
        """Aim at a gateway that tries again for `retry_window_s` seconds."""
        self._retry_window_s = retry_window_s

    @asynccontextmanager
    async def aim(self, job: Job) -> AsyncIterator[Aim]:
        """Aim by `?orchestrator=`, for BYOC by header."""
        if job.capability.byoc:
            async with Byoc().aim(job) as aim:
                yield aim
            return
        line = f"query: orchestrator={job.target.service_uri}"
        aim = Aim({"orchestrator": job.target.service_uri}, attribution=Attribution(Kind.PRESUMED, (line,)))
        yield aim
        if aim.exchange is not None:
            aim.attempts = answer_time.read(aim.exchange, self._retry_window_s)

    def rest(self) -> None:
        """Do nothing: nobody is named between jobs."""


class Byoc:
    """Names the orchestrator in the job's `Livepeer` header; works on any gateway."""

    kind = "byoc"

    @asynccontextmanager
    async def aim(self, job: Job) -> AsyncIterator[Aim]:
        """Aim by `orchestrators.include`."""
        uri = job.target.service_uri
        line = f"header: orchestrators.include = [{uri}]"
        header = byoc.header(job.pipeline, uri, job.timeout_s)
        yield Aim(headers=header, attribution=Attribution(Kind.PRESUMED, (line,)))

    def rest(self) -> None:
        """Do nothing: nobody is named between jobs."""


class Webhook:
    """Names the orchestrator in the webhook's answer while a lease lasts; the gateway asks, we answer."""

    kind = "webhook"

    def __init__(self, lease: Lease, client: Client, *, first_ask_s: float) -> None:
        """Aim through `client`'s gateway; one that does not ask within `first_ask_s` of a job gets no longer."""
        self.lease = lease
        self._client = client
        self._first_ask_s = first_ask_s
        self._turn = asyncio.Lock()
        self._moved = asyncio.Event()

    @asynccontextmanager
    async def aim(self, job: Job) -> AsyncIterator[Aim]:
        """Aim by the lease; BYOC jobs need their header besides, since the webhook feeds their candidates too."""
        async with self._turn:
            await self._hold(job.orchestrator)
            flight = self.lease.sent(job.id, time.monotonic())
        aim = Aim(
            headers=byoc.header(job.pipeline, job.target.service_uri, job.timeout_s) if job.capability.byoc else {}
        )
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._first_ask_s, self._unasked, job.id) if not job.capability.byoc else None
        try:
            yield aim
        finally:
            if timer is not None:
                timer.cancel()
            gone = aim.exchange is None or aim.exchange.disconnected
            self.lease.ended(job.id, time.monotonic(), disconnected=gone)
            asked = self.lease.claim(flight)
            aim.overlapped = flight.overlapped
            if not job.capability.byoc and aim.exchange is not None:
                aim.attempts = _attempts(flight, aim.exchange)
            if aim.exchange is not None and (aim.exchange.retried or aim.attempts.never_reached):
                asked = aim.attempts.pattern is not Pattern.NOT_FOLLOWING
            aim.attribution = _by_asking(asked or job.capability.byoc, flight.asks, job)
            self._moved.set()

    def named(self) -> tuple[Orchestrator, ...]:
        """Answer the gateway's question whom to use now."""
        found = self.lease.named(time.monotonic())
        self._moved.set()
        return found

    def rest(self) -> None:
        """Name nobody until there is a job again."""
        self.lease.release(time.monotonic())

    async def _hold(self, orchestrator: Orchestrator) -> None:
        """Wait until the lease may name this orchestrator, and let it."""
        while True:
            now = time.monotonic()
            ready = self.lease.ready_at(orchestrator, now)
            if ready is not None and ready <= now:
                self.lease.grant(orchestrator, now)
                return
            self._moved.clear()
            try:
                async with asyncio.timeout(None if ready is None else ready - now):
                    await self._moved.wait()
            except TimeoutError:
                continue

    def _unasked(self, job_id: str) -> None:
        flight = self.lease.flights.get(job_id)
        if flight is not None and flight.asks == 0:
            self._client.give_up(
                job_id, Ending.TIMEOUT, f"the gateway did not ask whom to use within {self._first_ask_s:g} s"
            )


def _attempts(flight: Flight, exchange: Exchange) -> Attempts:
    """Return what the questions of one job say; nothing where another job's may be among them."""
    if flight.asks and (flight.overlapped or not flight.alone):
        return Attempts(Pattern.UNCLEAR, 0, f"the gateway asked {flight.asks} times, also for other jobs")
    return questions.classify(
        flight.asked_at,
        answered=exchange.looks_passed,
        retried=exchange.retried,
        hung_up=exchange.disconnected,
    )


def _by_asking(asked: bool, asks: int, job: Job) -> Attribution:
    if asked:
        return Attribution(Kind.PRESUMED, (f"webhook: asked {asks} times while {job.target.service_uri} was named",))
    return Attribution(Kind.MISSING, (f"webhook: the gateway asked {asks} times, so it chose from what it remembered",))


def entries(orchestrators: Sequence[Orchestrator]) -> list[dict[str, object]]:
    """Put orchestrators into the form that a gateway's -orchWebhookUrl expects."""
    return [{"address": one.service_uri, "score": 1.0} for one in orchestrators]
