"""Carry one job through one gateway: name its orchestrator, send it, and judge what came back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import orjson

from jobtester.checks.checker import AnswerChecker, CheckedAnswer
from jobtester.domain.attempts import AttemptPattern, Attempts
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.judgement import judge
from jobtester.domain.reasons import Outcome, Verdict
from jobtester.domain.results import Result
from jobtester.domain.runner_judgement import judge_runner, needs_connection
from jobtester.gateway.connection_probe import ConnectionProbe
from jobtester.gateway.evidence import CollectedEvidence, JobTrace
from jobtester.gateway.peer import JobPeer
from jobtester.gateway.result_files import ResultFile
from jobtester.gateway.targeting import TargetingResult
from jobtester.pipelines.catalogue import Catalogue
from jobtester.pipelines.request import Request, Requests
from jobtester.pipelines.token_limits import TokenLimits

_FILE_TIMEOUT_S = 30.0
_MAX_KEPT_RESPONSE = 16 * 1024  # bytes
_NOBODY_SELECTED = ("not_selected", "unclear", "capacity_unknown")
_LOST = (Ending.NO_REPLY, Ending.REFUSED, Ending.CUT_SHORT, Ending.TIMEOUT)  # as a gateway that is gone leaves a job


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """How much of an answer and of a file it names is read, in bytes."""

    max_response: int
    max_artifact: int


@dataclass(frozen=True, slots=True)
class SentJob:
    """A job that has its answer and is not judged yet."""

    job: Job
    request: Request
    exchange: Exchange
    targeting: TargetingResult
    trace: JobTrace


@dataclass(frozen=True, slots=True)
class JudgedJob:
    """A judged job, with what decides whether its result is recorded now.

    `is_unattributed` means that it ran beside others, and nothing proves that its orchestrator served it.
    `runner_refusal` is its verdict if the gateway turns out to serve llm at all: it answers a runner's 400 with 500, as
    it does its own faults. `is_unclear` means that running it once more alone may show whether it reached its
    orchestrator.
    """

    result: Result
    is_unattributed: bool
    is_gateway_alive: bool
    was_never_sent: bool
    runner_refusal: Verdict | None = None
    is_unclear: bool = False


@dataclass(slots=True)
class JobAttempt:
    """Sends and judges the jobs of one tick; keeps nothing of one job for the next but the raised token limits."""

    catalogue: Catalogue
    requests: Requests
    checker: AnswerChecker
    limits: SizeLimits
    token_limits: TokenLimits = field(default_factory=TokenLimits)
    connection_probe: ConnectionProbe = field(default_factory=lambda: ConnectionProbe(()))

    async def send(self, job: Job, gateway: JobPeer, on_leaving: Callable[[], None]) -> SentJob:
        """Send a job when its turn comes, and wait for its answer; `on_leaving` is called when its turn has come.

        Never raises for what the network does: the exchange says how it ended.
        """
        request = self.requests.build(self.catalogue[job.definition], job.model)
        async with gateway.targeting.acquire(job) as lease:
            on_leaving()
            trace = gateway.evidence.on_sent(job, asyncio.get_running_loop().time())
            try:
                exchange = await gateway.client.send(
                    gateway.job_path(job, request.path),
                    request.body if request.method == "POST" else None,
                    job_id=job.id,
                    timeout_s=gateway.job_timeout_s(job),
                    query=lease.query,
                    headers={"Content-Type": request.content_type, **lease.headers},
                    max_bytes=self.limits.max_response,
                    first_token=request.first_token,
                )
            except Exception:
                gateway.evidence.forget(trace)
                raise
            gateway.evidence.on_ended(trace, exchange)
            targeting = lease.finish(exchange)
        return SentJob(job, request, exchange, targeting, trace)

    async def judge(self, sent: SentJob, gateway: JobPeer, *, busy_retries: int = 0) -> JudgedJob:
        """Check an answer, collect the evidence of who served it, and judge; `busy_retries` is kept in the result."""
        exchange = sent.exchange
        is_alive = await gateway.client.is_alive() if exchange.ending in _LOST else True
        checked, evidence = await self._check_and_collect(sent, gateway)
        verdict, attribution = await self._find_verdict(sent, gateway, checked, evidence, is_alive=is_alive)
        verdict, attribution = _consider_trust(verdict, attribution, gateway)
        result = self._make_result(sent, gateway, checked, verdict, attribution, busy_retries=busy_retries)
        is_unproven = sent.targeting.was_overlapped and attribution.kind is not AttributionKind.PROVEN
        is_disowned = (verdict.scored and verdict.code != "unreachable") or verdict.code == "refuted"
        refusal = None if gateway.trust.refuted else _find_runner_refusal(sent, verdict, attribution)
        is_llm_500 = gateway.lease is not None and sent.job.pipeline == "llm" and verdict.code == "500"
        return JudgedJob(
            result,
            is_unattributed=is_unproven and (is_disowned or refusal is not None),
            is_gateway_alive=is_alive,
            was_never_sent=exchange.ending is Ending.REFUSED,
            runner_refusal=refusal,
            is_unclear=verdict.code == "unclear" or (is_llm_500 and _is_unread(sent) and refusal is None),
        )

    async def _check_and_collect(self, sent: SentJob, gateway: JobPeer) -> tuple[CheckedAnswer, CollectedEvidence]:
        """Check an answer that the gateway calls a success, while the gateway's metrics are read."""
        exchange, job = sent.exchange, sent.job
        collecting = asyncio.ensure_future(gateway.evidence.collect(sent.trace, exchange))
        checked = CheckedAnswer()
        try:
            if exchange.gateway_reports_success and not sent.request.takes_any_answer:
                fetch = partial(_fetch_file, gateway, job, self.limits.max_artifact)
                checked = await self.checker.check(sent.request.expectation, exchange.body, fetch=fetch)
                self.token_limits.learn(self.catalogue[job.definition], job.model, checked.notes)
            evidence = await collecting
        finally:
            if not collecting.done():  # its reading may take seconds, and nobody waits for it any more
                collecting.cancel()
                await asyncio.wait({collecting})
        awaits_event = _awaits_event(sent, evidence)
        return checked, await gateway.evidence.add_events(sent.trace, evidence, wait=awaits_event)

    async def _find_verdict(
        self,
        sent: SentJob,
        gateway: JobPeer,
        checked: CheckedAnswer,
        evidence: CollectedEvidence,
        *,
        is_alive: bool,
    ) -> tuple[Verdict, Attribution]:
        """Judge, and connect to the orchestrator itself where nothing else tells whether it can be reached."""
        job, exchange, targeting = sent.job, sent.exchange, sent.targeting
        attribution = evidence.apply_to(targeting.attribution)
        if job.capability.runner is not None:
            return await self._find_runner_verdict(sent, checked, attribution)
        attempts = _attempts(sent)
        cause = evidence.cause
        if not cause and job.capability.is_busy and _is_unread(sent) and not exchange.gateway_reports_success:
            cause = "insufficient capacity: every slot was advertised as taken"
        has_followed = targeting.attribution.kind is not AttributionKind.MISSING
        find_verdict = partial(
            judge,
            exchange,
            checked.findings,
            byoc=job.capability.byoc,
            cause=cause,
            gateway_alive=is_alive and not evidence.gateway_restarted,
            gateway_followed=has_followed or attribution.kind is AttributionKind.PROVEN,
            attempts=attempts,
        )
        verdict = find_verdict(attribution)
        if attempts is not None and not exchange.gateway_reports_success:
            attribution = _with_line(attribution, attempts.summary)
            if verdict.code == "unclear" or (gateway.targeting.kind == "query" and verdict.code == "503"):
                connection = await self.connection_probe.probe(job.target.service_uri)
                attribution = _with_line(attribution, connection.summary)
                verdict = find_verdict(attribution, attempts=replace(attempts, connection=connection))
        return verdict, attribution

    async def _find_runner_verdict(
        self, sent: SentJob, checked: CheckedAnswer, attribution: Attribution
    ) -> tuple[Verdict, Attribution]:
        """Judge a job that went to the orchestrator itself; where no answer came, see whose line is at fault."""
        connection = None
        if needs_connection(sent.exchange):
            connection = await self.connection_probe.probe(sent.job.target.service_uri)
            attribution = _with_line(attribution, connection.summary)
        return judge_runner(sent.exchange, checked.findings, attribution, connection), attribution

    def _make_result(
        self,
        sent: SentJob,
        gateway: JobPeer,
        checked: CheckedAnswer,
        verdict: Verdict,
        attribution: Attribution,
        *,
        busy_retries: int,
    ) -> Result:
        exchange = sent.exchange
        keeps_response = self.catalogue[sent.job.definition].capture_response or verdict.outcome is not Outcome.PASSED
        measures: Mapping[str, float] = {}
        if exchange.gateway_reports_success:
            measures = checked.measures(exchange.round_trip_s, exchange.first_token_s)
        return Result(
            job=sent.job,
            verdict=verdict,
            attribution=attribution,
            gateway=gateway.name,
            targeting=gateway.targeting.kind,
            started_at=exchange.started_at,
            round_trip_s=exchange.round_trip_s,
            status=exchange.status,
            artifact_s=checked.artifact_s,
            request=orjson.dumps(sent.request.parameters).decode(),
            response=_shorten_response(exchange.body) if keeps_response else "",
            measures=measures,
            deferred=busy_retries,
            notes=checked.notes,
        )


async def _fetch_file(gateway: JobPeer, job: Job, max_bytes: int, url: str) -> ResultFile:
    return await gateway.client.fetch(gateway.file_url(job, url), timeout_s=_FILE_TIMEOUT_S, max_bytes=max_bytes)


def _attempts(sent: SentJob) -> Attempts | None:
    """Return what is known of the gateway's attempts; None for BYOC, where the gateway asks by header alone."""
    return None if sent.job.capability.byoc else sent.targeting.attempts


def _is_unread(sent: SentJob) -> bool:
    """Return True if nothing says how far the gateway's attempts came."""
    attempts = _attempts(sent)
    return attempts is None or attempts.pattern is AttemptPattern.UNCLEAR


def _awaits_event(sent: SentJob, evidence: CollectedEvidence) -> bool:
    """Return True if an event of the gateway's would change the verdict, by its proof or by its cause."""
    if sent.exchange.ending in (Ending.ABORTED, Ending.REFUSED):
        return False
    if sent.targeting.was_overlapped and not evidence.is_proof:
        return True
    return not sent.exchange.gateway_reports_success and not evidence.cause


def _with_line(attribution: Attribution, line: str) -> Attribution:
    """Add a line of evidence that changes nothing about the kind of attribution."""
    if not line or line in attribution.evidence:
        return attribution
    return attribution.with_evidence(attribution.kind, line)


def _find_runner_refusal(sent: SentJob, verdict: Verdict, attribution: Attribution) -> Verdict | None:
    """Return the runner's 400 where a gateway's 500 to an llm job may be one: the job has reached its orchestrator."""
    is_proven = attribution.kind is AttributionKind.PROVEN
    is_reached = sent.targeting.attempts.pattern is AttemptPattern.REACHED or is_proven
    body = sent.exchange.body.strip()
    if verdict.code != "500" or sent.job.pipeline != "llm" or not (is_reached and attribution.is_scorable):
        return None
    if body[:1] == b"<":  # HTML is a proxy's own
        return None
    text = body[:200].decode("utf-8", "replace")
    return Verdict.from_code("400", f"The runner refused the input, which the gateway answers with 500: {text}")


def _consider_trust(verdict: Verdict, attribution: Attribution, gateway: JobPeer) -> tuple[Verdict, Attribution]:
    """Return verdict and attribution in the light of what the gateway has done in this tick so far."""
    is_presumed = attribution.kind is AttributionKind.PRESUMED
    if is_presumed and verdict.scored and gateway.trust.refuted:
        line = "In this tick the gateway has used another orchestrator than the one it was told to"
        return Verdict.from_code("unproven", f"{line}, so what nothing proves is not scored."), attribution
    if is_presumed and gateway.trust.missing and verdict.code in _NOBODY_SELECTED:
        line = "the gateway chooses orchestrators by itself"
        return Verdict.from_code("not_targeted"), attribution.with_evidence(AttributionKind.MISSING, line)
    return verdict, attribution


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
