"""Trial: one job on one gateway, from aiming to a judged result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import orjson

from jobtester.checks.checker import AnswerChecker
from jobtester.domain.attempts import AttemptPattern, Attempts
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.judgement import judge
from jobtester.domain.reasons import Finding, Note, Outcome, Verdict
from jobtester.domain.results import Result
from jobtester.gateway.byoc import BYOC_PREFIX, byoc_timeout_s
from jobtester.gateway.connection_probe import ConnectionProbe
from jobtester.gateway.evidence import CollectedEvidence, JobTrace
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.result_files import ResultFile
from jobtester.pipelines.catalogue import Catalogue
from jobtester.pipelines.request import Request, Requests
from jobtester.pipelines.token_limits import TokenLimits

_ARTIFACT_TIMEOUT_S = 30.0
_KEPT_RESPONSE = 16 * 1024
_NOBODY_FOUND = ("not_selected", "unclear", "capacity_unknown")
_LOST = (Ending.NO_REPLY, Ending.REFUSED, Ending.CUT_SHORT, Ending.TIMEOUT)  # as a gateway that is gone leaves a job


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """How much of an answer and of a file it names is read, in bytes."""

    max_response: int
    max_artifact: int


@dataclass(frozen=True, slots=True)
class SentJob:
    """A job that has its answer, not judged yet."""

    job: Job
    request: Request
    exchange: Exchange
    attribution: Attribution
    was_overlapped: bool
    trace: JobTrace
    attempts: Attempts


@dataclass(frozen=True, slots=True)
class JudgedJob:
    """A judged job.

    `ownerless` means that it ran beside others, and nothing proves that its orchestrator served it. `runner_refusal` is
    what the job came to if the gateway turns out to serve llm at all: it answers a runner's 400 with 500, as it does
    its own faults. `is_unclear` means that running it once more alone may show whether it reached its orchestrator.
    """

    result: Result
    is_unattributed: bool
    is_gateway_alive: bool
    was_never_sent: bool
    runner_refusal: Verdict | None = None
    is_unclear: bool = False


@dataclass(slots=True)
class JobAttempt:
    """Carries jobs of one tick through sending and judging; keeps nothing between them."""

    catalogue: Catalogue
    requests: Requests
    checker: AnswerChecker
    limits: SizeLimits
    token_limits: TokenLimits = field(default_factory=TokenLimits)
    connection_probe: ConnectionProbe = field(default_factory=lambda: ConnectionProbe(()))

    async def send(self, job: Job, gateway: Gateway, leaves: Callable[[], None]) -> SentJob:
        """Aim and send one job, and wait for its answer; `leaves` is called when it goes. The network never raises."""
        definition = self.catalogue[job.pipeline]
        request = self.requests.build(definition, job.model)
        external = job.capability.byoc
        async with gateway.targeting.acquire(job) as aim:
            leaves()
            life = gateway.evidence.on_sent(job, asyncio.get_running_loop().time())
            try:
                exchange = await gateway.client.send(
                    BYOC_PREFIX + request.path if external else request.path,
                    request.body,
                    job_id=job.id,
                    timeout_s=byoc_timeout_s(job.timeout_s) if external else job.timeout_s,
                    content_type=request.content_type,
                    query=aim.query,
                    headers=aim.headers,
                    max_bytes=self.limits.max_response,
                    first_token=request.first_token,
                )
            except Exception:
                gateway.evidence.forget(life)
                raise
            gateway.evidence.on_ended(life, exchange)
            aim.exchange = exchange
        return SentJob(job, request, exchange, aim.attribution, aim.was_overlapped, life, aim.attempts)

    async def judge(self, sent: SentJob, gateway: Gateway, *, deferred: int = 0) -> JudgedJob:
        """Look at an answer and at the evidence, and judge."""
        job, exchange = sent.job, sent.exchange
        definition = self.catalogue[job.pipeline]
        alive = True
        if exchange.ending in _LOST:
            alive = await gateway.client.is_alive()
        gathering = asyncio.ensure_future(gateway.evidence.collect(sent.trace, exchange))
        findings: tuple[Finding, ...] = ()
        artifact_s = None
        response = ""
        measures: Mapping[str, float] = {}
        notes: tuple[Note, ...] = ()
        try:
            if exchange.gateway_reports_success:
                examined = await self.checker.check(
                    sent.request.expectation, exchange.body, fetch=self._fetcher(gateway)
                )
                findings, artifact_s, notes = examined.findings, examined.artifact_s, examined.notes
                self.token_limits.learn(definition, job.model, notes)
                measures = examined.measures(exchange.round_trip_s, exchange.first_token_s)
            gathered = await gathering
        finally:
            if not gathering.done():  # its reading may take seconds, and nobody waits for it any more
                gathering.cancel()
                await asyncio.wait({gathering})
        gathered = await gateway.evidence.add_events(sent.trace, gathered, wait=_awaits_event(sent, gathered))
        attribution = gathered.apply_to(sent.attribution)
        cause = gathered.cause
        attempts = None if job.capability.byoc else sent.attempts
        unread = attempts is None or attempts.pattern is AttemptPattern.UNCLEAR
        if not cause and job.capability.is_busy and unread and not exchange.gateway_reports_success:
            cause = "insufficient capacity: every slot was advertised as taken"
        judge_with = partial(
            judge,
            exchange,
            findings,
            byoc=job.capability.byoc,
            cause=cause,
            gateway_alive=alive and not gathered.gateway_restarted,
            gateway_followed=sent.attribution.kind is not AttributionKind.MISSING
            or attribution.kind is AttributionKind.PROVEN,
        )
        verdict = judge_with(attribution, attempts=attempts)
        if attempts is not None and not exchange.gateway_reports_success:
            attribution = _with_line(attribution, attempts.summary)
            if verdict.code == "unclear" or (gateway.targeting.kind == "query" and verdict.code == "503"):
                connection = await self.connection_probe.probe(job.target.service_uri)
                attribution = _with_line(attribution, connection.summary)
                verdict = judge_with(attribution, attempts=attempts, connection=connection)
        verdict, attribution = _as_the_gateway_follows(verdict, attribution, gateway)
        if definition.capture_response or verdict.outcome is not Outcome.PASSED:
            response = _kept_response(exchange.body)
        disowned = (verdict.scored and verdict.code != "unreachable") or verdict.code == "refuted"
        ownerless = sent.was_overlapped and disowned and attribution.kind is not AttributionKind.PROVEN
        result = Result(
            job=job,
            verdict=verdict,
            attribution=attribution,
            gateway=gateway.name,
            targeting=gateway.targeting.kind,
            started_at=exchange.started_at,
            round_trip_s=exchange.round_trip_s,
            status=exchange.status,
            artifact_s=artifact_s,
            request=orjson.dumps(sent.request.parameters).decode(),
            response=response,
            measures=measures,
            deferred=deferred,
            notes=notes,
        )
        refusal = None if gateway.trust.refuted else _runner_refusal(sent, verdict, attribution)
        if refusal is not None:
            ownerless = sent.was_overlapped and attribution.kind is not AttributionKind.PROVEN
        unread_llm = gateway.targeting.kind == "webhook" and unread and job.pipeline == "llm" and verdict.code == "500"
        is_unclear = verdict.code == "unclear" or (unread_llm and refusal is None)
        return JudgedJob(result, ownerless, alive, exchange.ending is Ending.REFUSED, refusal, is_unclear)

    def _fetcher(self, gateway: Gateway) -> Callable[[str], Awaitable[ResultFile]]:
        async def fetch(url: str) -> ResultFile:
            return await gateway.client.fetch(url, timeout_s=_ARTIFACT_TIMEOUT_S, max_bytes=self.limits.max_artifact)

        return fetch


def _awaits_event(sent: SentJob, gathered: CollectedEvidence) -> bool:
    """Tell whether an event of the gateway's would change what a job comes to, by its proof or by its cause."""
    if sent.exchange.ending in (Ending.ABORTED, Ending.REFUSED):
        return False
    if sent.was_overlapped and not gathered.is_proof:
        return True
    return not sent.exchange.gateway_reports_success and not gathered.cause


def _with_line(attribution: Attribution, line: str) -> Attribution:
    return (
        attribution.with_evidence(attribution.kind, line) if line and line not in attribution.evidence else attribution
    )


def _runner_refusal(sent: SentJob, verdict: Verdict, attribution: Attribution) -> Verdict | None:
    """Return the runner's 400 where a gateway's 500 to an llm job may be one: the job has reached its orchestrator."""
    reached = sent.attempts.pattern is AttemptPattern.REACHED or attribution.kind is AttributionKind.PROVEN
    body = sent.exchange.body.strip()
    if verdict.code != "500" or sent.job.pipeline != "llm" or not (reached and attribution.is_scorable):
        return None
    if body[:1] == b"<":  # a proxy's own
        return None
    text = body[:200].decode("utf-8", "replace")
    return Verdict.from_code("400", f"The runner refused the input, which the gateway answers with 500: {text}")


def _as_the_gateway_follows(
    verdict: Verdict, attribution: Attribution, gateway: Gateway
) -> tuple[Verdict, Attribution]:
    """Return what a job came to in the light of what its gateway has done in this tick so far."""
    presumed = attribution.kind is AttributionKind.PRESUMED
    if presumed and verdict.scored and gateway.trust.refuted:
        line = "In this tick the gateway has used another orchestrator than the one it was told to"
        return Verdict.from_code("unproven", f"{line}, so what nothing proves is not scored."), attribution
    if presumed and gateway.trust.missing and verdict.code in _NOBODY_FOUND:
        line = "the gateway chooses orchestrators by itself"
        return Verdict.from_code("not_targeted"), attribution.with_evidence(AttributionKind.MISSING, line)
    return verdict, attribution


def unattributed(result: Result) -> Result:
    """Make the result of a job whose answer nobody could be shown to have given."""
    return replace(result, verdict=Verdict.from_code("unproven"))


def _kept_response(body: bytes) -> str:
    """Give what is kept of an answer: the whole if it is short JSON, else its beginning, wrapped as JSON."""
    if len(body) <= _KEPT_RESPONSE:
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
        else:
            return body.decode("utf-8", "replace").strip()
    begin = body[:2000].decode("utf-8", "replace").strip()
    return orjson.dumps({"message": begin, "bytes": len(body)}).decode() if body else ""
