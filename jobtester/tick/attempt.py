"""Define how one job is carried from its peer to its verdict, with what all ways share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import orjson

from jobtester.checks.checker import AnswerChecker, CheckedAnswer
from jobtester.domain.attribution import Attribution
from jobtester.domain.exchanges import Exchange, OutgoingRequest
from jobtester.domain.jobs import Job
from jobtester.domain.reasons import Outcome, Verdict
from jobtester.domain.results import Result
from jobtester.gateway.connection_probe import ConnectionProbe
from jobtester.gateway.evidence import JobTrace
from jobtester.gateway.peer import JobPeer
from jobtester.gateway.result_files import ResultFile
from jobtester.pipelines.catalogue import Catalogue
from jobtester.pipelines.request import Request, Requests
from jobtester.pipelines.token_limits import TokenLimits
from jobtester.tick.details import make_details

_FILE_TIMEOUT_S = 30.0
_MAX_KEPT_RESPONSE = 16 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """How much of an answer and of a file it names is read, and how much of a file is kept, in bytes; 0 keeps none."""

    max_response: int
    max_artifact: int
    max_kept: int = 0


@dataclass(frozen=True, slots=True)
class SentJob:
    """A job that has its answer and is not judged yet; `trace` is set where a gateway's evidence is collected for it.

    Each way of carrying jobs adds what its verdict needs besides. `exchange` is the one whose round trip counts.
    """

    job: Job
    exchange: Exchange
    trace: JobTrace | None


@dataclass(frozen=True, slots=True)
class JudgedJob:
    """A judged job, with what decides whether its result is recorded now.

    `is_unattributed` means that it ran beside others, and nothing proves that its orchestrator served it.
    `runner_refusal` is its verdict if the gateway turns out to serve llm at all: it answers a runner's 400 with 500, as
    it does its own faults. `is_unclear` means that running it once more alone may show whether it reached its
    orchestrator. `is_paid` means that it does not run once more, since that would be paid for again.
    """

    result: Result
    is_unattributed: bool
    is_gateway_alive: bool
    was_never_sent: bool
    runner_refusal: Verdict | None = None
    is_unclear: bool = False
    is_paid: bool = False


SentJobT = TypeVar("SentJobT", bound=SentJob)


class JobAttempt(Protocol[SentJobT]):
    """Sends and judges the jobs of one tick that go one way; keeps nothing of one job for the next.

    There is one for each Walk. It may hold more than one request: a session, a payment or a stream.
    """

    async def send(self, job: Job, peer: JobPeer, on_leaving: Callable[[], None]) -> SentJobT:
        """Send a job when its turn comes, and wait for its answer; `on_leaving` is called when its turn has come.

        Never raises for what the network does: the exchange says how it ended.
        """
        ...

    async def judge(self, sent: SentJobT, peer: JobPeer, *, busy_retries: int = 0) -> JudgedJob:
        """Check an answer, find out who served it, and judge; `busy_retries` is kept in the result."""
        ...

    def abort(self) -> None:
        """End now what a job holds besides the requests of its peer's client, which are ended by themselves."""
        ...


@dataclass(frozen=True, slots=True)
class AttemptTools:
    """What builds the requests of a tick's jobs and checks their answers, whichever way they go."""

    catalogue: Catalogue
    requests: Requests
    checker: AnswerChecker
    limits: SizeLimits
    token_limits: TokenLimits = field(default_factory=TokenLimits)
    connection_probe: ConnectionProbe = field(default_factory=lambda: ConnectionProbe(()))

    def build_request(self, job: Job) -> Request:
        """Return what a job sends."""
        return self.requests.build(self.catalogue[job.definition], job.model)

    def make_outgoing(
        self,
        job: Job,
        request: Request,
        url: str,
        timeout_s: float,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        *,
        is_follow_up: bool = False,
    ) -> OutgoingRequest:
        """Return a job's request as it goes to `url`, with the headers and the query of its way."""
        return OutgoingRequest(
            url,
            request.body if request.method == "POST" else None,
            job.id,
            timeout_s,
            self.limits.max_response,
            query or {},
            {"Content-Type": request.content_type, **headers},
            request.first_token,
            is_follow_up=is_follow_up,
        )

    async def check_answer(
        self, job: Job, request: Request, exchange: Exchange, peer: JobPeer, locate: Callable[[str], str] = str
    ) -> CheckedAnswer:
        """Check an answer that is called a success; one that is none has nothing to check.

        `locate` returns the whole URL of a file that the answer names; without it the URL goes to the client as it is.
        """
        if not exchange.gateway_reports_success or request.takes_any_answer:
            return CheckedAnswer()
        fetch = partial(_fetch_file, peer, locate, self.limits.max_artifact)
        max_kept = self.limits.max_kept
        checked = await self.checker.check(request.expectation, exchange.body, fetch=fetch, max_kept_bytes=max_kept)
        self.token_limits.learn(self.catalogue[job.definition], job.model, checked.notes)
        return checked

    def make_result(
        self,
        sent: SentJob,
        request: Request,
        peer: JobPeer,
        checked: CheckedAnswer,
        verdict: Verdict,
        attribution: Attribution,
        *,
        busy_retries: int,
        measures: Mapping[str, float] | None = None,
    ) -> Result:
        """Return the result of a judged job; `measures` are those of its way, besides those of its answer."""
        job, exchange = sent.job, sent.exchange
        keeps_response = self.catalogue[job.definition].capture_response or verdict.outcome is not Outcome.PASSED
        answer_measures: Mapping[str, float] = {}
        if exchange.gateway_reports_success:
            answer_measures = checked.measures(exchange.round_trip_s, exchange.first_token_s)
        return Result(
            job=job,
            verdict=verdict,
            attribution=attribution,
            gateway=peer.name,
            targeting=peer.targeting.kind,
            started_at=exchange.started_at,
            round_trip_s=exchange.round_trip_s,
            status=exchange.status,
            artifact_s=checked.artifact_s,
            request=orjson.dumps(request.parameters).decode(),
            response=_shorten_response(exchange.body) if keeps_response else "",
            measures={**answer_measures, **(measures or {})},
            deferred=busy_retries,
            notes=checked.notes,
            details=make_details(request, exchange, checked),
        )


def with_line(attribution: Attribution, line: str) -> Attribution:
    """Add a line of evidence that changes nothing about the kind of attribution."""
    if not line or line in attribution.evidence:
        return attribution
    return attribution.with_evidence(attribution.kind, line)


async def _fetch_file(peer: JobPeer, locate: Callable[[str], str], max_bytes: int, url: str) -> ResultFile:
    return await peer.client.fetch(locate(url), timeout_s=_FILE_TIMEOUT_S, max_bytes=max_bytes)


def _shorten_response(body: bytes) -> str:
    """Return what is kept of an answer: the whole if it is short JSON, else its beginning, wrapped as JSON."""
    if len(body) <= _MAX_KEPT_RESPONSE:
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
        else:
            return body.decode("utf-8", "replace").strip()
    begin = body[:2000].decode("utf-8", "replace").strip()
    return orjson.dumps({"message": begin, "bytes": len(body)}).decode() if body else ""
