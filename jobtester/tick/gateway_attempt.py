"""Carry one job through one gateway: name its orchestrator, send it, and judge what came back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from jobtester.checks.checker import CheckedAnswer
from jobtester.domain.attempts import AttemptPattern, Attempts
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending
from jobtester.domain.jobs import Job
from jobtester.domain.judgement import judge
from jobtester.domain.reasons import Verdict
from jobtester.gateway.evidence import CollectedEvidence, JobTrace
from jobtester.gateway.peer import JobPeer
from jobtester.gateway.targeting import TargetingResult, answer_timeout_s, request_path
from jobtester.pipelines.request import Request
from jobtester.tick.attempt import AttemptTools, JudgedJob, SentJob, with_line

_NOBODY_SELECTED = ("not_selected", "unclear", "capacity_unknown")
_LOST = (Ending.NO_REPLY, Ending.REFUSED, Ending.CUT_SHORT, Ending.TIMEOUT)  # as a gateway that is gone leaves a job
_GOING_S = 0.5  # how long a gateway that has dropped its jobs may still listen


@dataclass(frozen=True, slots=True)
class SentGatewayJob(SentJob):
    """A job that a gateway has answered."""

    trace: JobTrace
    request: Request
    targeting: TargetingResult


@dataclass(frozen=True, slots=True)
class GatewayAttempt:
    """Sends jobs through gateways and judges them."""

    tools: AttemptTools

    async def send(self, job: Job, gateway: JobPeer, on_leaving: Callable[[], None]) -> SentGatewayJob:
        """Send a job when its turn comes, and wait for its answer; `on_leaving` is called when its turn has come.

        Never raises for what the network does: the exchange says how it ended.
        """
        request = self.tools.build_request(job)
        async with gateway.targeting.acquire(job) as lease:
            on_leaving()
            path, timeout_s = request_path(job, request.path), answer_timeout_s(job)
            outgoing = self.tools.make_outgoing(job, request, path, timeout_s, lease.headers, lease.query)
            trace = gateway.evidence.on_sent(job, asyncio.get_running_loop().time())
            try:
                exchange = await gateway.client.send(outgoing)
            except Exception:
                gateway.evidence.forget(trace)
                raise
            gateway.evidence.on_ended(trace, exchange)
            targeting = lease.finish(exchange)
        return SentGatewayJob(job, exchange, trace, request, targeting)

    async def judge(self, sent: SentGatewayJob, gateway: JobPeer, *, busy_retries: int = 0) -> JudgedJob:
        """Check an answer, collect the evidence of who served it, and judge; `busy_retries` is kept in the result."""
        exchange = sent.exchange
        is_alive = await gateway.client.is_alive() if exchange.ending in _LOST else True
        checked, evidence = await self._check_and_collect(sent, gateway)
        verdict, attribution = await self._find_verdict(sent, gateway, checked, evidence, is_alive=is_alive)
        if verdict.scored and is_alive and exchange.ending in _LOST:
            # A gateway that goes may drop its jobs before it stops listening, so it is asked once more.
            await asyncio.sleep(_GOING_S)
            is_alive = await gateway.client.is_alive()
            if not is_alive:
                verdict, attribution = await self._find_verdict(sent, gateway, checked, evidence, is_alive=False)
        verdict, attribution = _consider_trust(verdict, attribution, gateway)
        result = self.tools.make_result(
            sent, sent.request, gateway, checked, verdict, attribution, busy_retries=busy_retries
        )
        is_unproven = sent.targeting.was_overlapped and attribution.kind is not AttributionKind.PROVEN
        is_disowned = (verdict.scored and verdict.code != "unreachable") or verdict.code == "refuted"
        refusal = None if gateway.trust.refuted else _find_runner_refusal(sent, verdict, attribution)
        is_llm_500 = gateway.targeting.kind == "webhook" and sent.job.pipeline == "llm" and verdict.code == "500"
        return JudgedJob(
            result,
            is_unattributed=is_unproven and (is_disowned or refusal is not None),
            is_gateway_alive=is_alive,
            was_never_sent=exchange.ending is Ending.REFUSED,
            runner_refusal=refusal,
            is_unclear=verdict.code == "unclear" or (is_llm_500 and _is_unread(sent) and refusal is None),
        )

    async def _check_and_collect(
        self, sent: SentGatewayJob, gateway: JobPeer
    ) -> tuple[CheckedAnswer, CollectedEvidence]:
        """Check an answer that the gateway calls a success, while the gateway's metrics are read."""
        collecting = asyncio.ensure_future(gateway.evidence.collect(sent.trace, sent.exchange))
        try:
            checked = await self.tools.check_answer(sent.job, sent.request, sent.exchange, gateway)
            evidence = await collecting
        finally:
            if not collecting.done():  # its reading may take seconds, and nobody waits for it any more
                collecting.cancel()
                await asyncio.wait({collecting})
        awaits_event = _awaits_event(sent, evidence)
        return checked, await gateway.evidence.add_events(sent.trace, evidence, wait=awaits_event)

    async def _find_verdict(
        self,
        sent: SentGatewayJob,
        gateway: JobPeer,
        checked: CheckedAnswer,
        evidence: CollectedEvidence,
        *,
        is_alive: bool,
    ) -> tuple[Verdict, Attribution]:
        """Judge, and connect to the orchestrator itself where nothing else tells whether it can be reached."""
        job, exchange, targeting = sent.job, sent.exchange, sent.targeting
        attribution = evidence.apply_to(targeting.attribution)
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
            attribution = with_line(attribution, attempts.summary)
            if verdict.code == "unclear" or (gateway.targeting.kind == "query" and verdict.code == "503"):
                connection = await self.tools.connection_probe.probe(job.target.service_uri)
                attribution = with_line(attribution, connection.summary)
                verdict = find_verdict(attribution, attempts=replace(attempts, connection=connection))
        return verdict, attribution

    def abort(self) -> None:
        """Do nothing: a job holds nothing but its request."""


def _attempts(sent: SentGatewayJob) -> Attempts | None:
    """Return what is known of the gateway's attempts; None for BYOC, where the gateway asks by header alone."""
    return None if sent.job.capability.byoc else sent.targeting.attempts


def _is_unread(sent: SentGatewayJob) -> bool:
    """Return True if nothing says how far the gateway's attempts came."""
    attempts = _attempts(sent)
    return attempts is None or attempts.pattern is AttemptPattern.UNCLEAR


def _awaits_event(sent: SentGatewayJob, evidence: CollectedEvidence) -> bool:
    """Return True if an event of the gateway's would change the verdict, by its proof or by its cause."""
    if sent.exchange.ending in (Ending.ABORTED, Ending.REFUSED):
        return False
    if sent.targeting.was_overlapped and not evidence.is_proof:
        return True
    return not sent.exchange.gateway_reports_success and not evidence.cause


def _find_runner_refusal(sent: SentGatewayJob, verdict: Verdict, attribution: Attribution) -> Verdict | None:
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
