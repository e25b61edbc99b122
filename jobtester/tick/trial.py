"""Trial: one job on one lane, from aiming to a judged result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import orjson

from jobtester.domain import outcome
from jobtester.domain.attempts import Attempts, Pattern
from jobtester.domain.attribution import Attribution, Kind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.notes import Note
from jobtester.domain.results import Result
from jobtester.gateway import byoc, evidence
from jobtester.gateway.artefacts import Artefact
from jobtester.gateway.connection_probe import ConnectionProbe
from jobtester.gateway.lane import Lane
from jobtester.pipelines.catalogue import Catalogue
from jobtester.pipelines.examiner import Examiner
from jobtester.pipelines.request import Request, Requests
from jobtester.pipelines.token_limits import TokenLimits

_ARTEFACT_TIMEOUT_S = 30.0
_KEPT_RESPONSE = 16 * 1024
_NOBODY_FOUND = ("not_selected", "unclear", "capacity_unknown")
_LOST = (Ending.NO_REPLY, Ending.REFUSED, Ending.CUT_SHORT, Ending.TIMEOUT)  # as a gateway that is gone leaves a job


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of an answer and of a file it names is read, in bytes."""

    max_response: int
    max_artefact: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A job that has its answer, not judged yet."""

    job: Job
    request: Request
    exchange: Exchange
    attribution: Attribution
    overlapped: bool
    life: evidence.Life
    attempts: Attempts


@dataclass(frozen=True, slots=True)
class Judged:
    """A judged job.

    `ownerless` means that it ran beside others, and nothing proves that its orchestrator served it. `runner_refusal` is
    what the job came to if the gateway turns out to serve llm at all: it answers a runner's 400 with 500, as it does
    its own faults. `is_unclear` means that running it once more alone may show whether it reached its orchestrator.
    """

    result: Result
    ownerless: bool
    gateway_alive: bool
    never_sent: bool
    runner_refusal: outcome.Verdict | None = None
    is_unclear: bool = False


@dataclass(slots=True)
class Trial:
    """Carries jobs of one tick through sending and judging; keeps nothing between them."""

    catalogue: Catalogue
    requests: Requests
    examiner: Examiner
    bounds: Bounds
    token_limits: TokenLimits = field(default_factory=TokenLimits)
    connections: ConnectionProbe = field(default_factory=lambda: ConnectionProbe(()))

    async def send(self, job: Job, lane: Lane, leaves: Callable[[], None]) -> Sent:
        """Aim and send one job, and wait for its answer; `leaves` is called when it goes. The network never raises."""
        definition = self.catalogue[job.pipeline]
        request = self.requests.build(definition, job.model)
        external = job.capability.byoc
        async with lane.targeting.aim(job) as aim:
            leaves()
            life = lane.evidence.sent(job, asyncio.get_running_loop().time())
            try:
                exchange = await lane.client.send(
                    byoc.PREFIX + request.path if external else request.path,
                    request.body,
                    job_id=job.id,
                    timeout_s=byoc.patience_s(job.timeout_s) if external else job.timeout_s,
                    content_type=request.content_type,
                    query=aim.query,
                    headers=aim.headers,
                    max_body=self.bounds.max_response,
                    first_token=request.first_token,
                )
            except Exception:
                lane.evidence.dropped(life)
                raise
            lane.evidence.ended(life, exchange)
            aim.exchange = exchange
        return Sent(job, request, exchange, aim.attribution, aim.overlapped, life, aim.attempts)

    async def judge(self, sent: Sent, lane: Lane, *, deferred: int = 0) -> Judged:
        """Look at an answer and at the evidence, and judge."""
        job, exchange = sent.job, sent.exchange
        definition = self.catalogue[job.pipeline]
        alive = True
        if exchange.ending in _LOST:
            alive = await lane.client.alive()
        gathering = asyncio.ensure_future(lane.evidence.gather(sent.life, exchange))
        findings: tuple[outcome.Finding, ...] = ()
        artefact_s = None
        response = ""
        measures: Mapping[str, float] = {}
        notes: tuple[Note, ...] = ()
        try:
            if exchange.looks_passed:
                examined = await self.examiner.examine(
                    definition, sent.request.expectation, exchange.body, fetch=self._fetcher(lane)
                )
                findings, artefact_s, notes = examined.findings, examined.artefact_s, examined.notes
                self.token_limits.learn(definition, job.model, notes)
                measures = examined.measures(exchange.round_trip_s, exchange.first_token_s)
            gathered = await gathering
        finally:
            if not gathering.done():  # its reading may take seconds, and nobody waits for it any more
                gathering.cancel()
                await asyncio.wait({gathering})
        gathered = await lane.evidence.told(sent.life, gathered, wait=_awaits_event(sent, gathered))
        attribution = gathered.applied_to(sent.attribution)
        cause = gathered.cause
        attempts = None if job.capability.byoc else sent.attempts
        unread = attempts is None or attempts.pattern is Pattern.UNCLEAR
        if not cause and job.capability.busy and unread and not exchange.looks_passed:
            cause = "insufficient capacity: every slot was advertised as taken"
        judge = partial(
            outcome.judge,
            exchange,
            findings,
            byoc=job.capability.byoc,
            cause=cause,
            gateway_alive=alive and not gathered.restarted,
            followed=sent.attribution.kind is not Kind.MISSING or attribution.kind is Kind.PROVEN,
        )
        verdict = judge(attribution, attempts=attempts)
        if attempts is not None and not exchange.looks_passed:
            attribution = _with_line(attribution, attempts.line)
            if verdict.code == "unclear" or (lane.targeting.kind == "query" and verdict.code == "503"):
                connection = await self.connections.look(job.target.service_uri)
                attribution = _with_line(attribution, connection.line)
                verdict = judge(attribution, attempts=attempts, connection=connection)
        verdict, attribution = _as_the_gateway_follows(verdict, attribution, lane)
        if definition.capture_response or verdict.outcome is not outcome.Outcome.PASSED:
            response = _shown(exchange.body)
        disowned = (verdict.scored and verdict.code != "unreachable") or verdict.code == "refuted"
        ownerless = sent.overlapped and disowned and attribution.kind is not Kind.PROVEN
        result = Result(
            job=job,
            verdict=verdict,
            attribution=attribution,
            gateway=lane.name,
            targeting=lane.targeting.kind,
            started_at=exchange.started_at,
            round_trip_s=exchange.round_trip_s,
            status=exchange.status,
            artefact_s=artefact_s,
            request=orjson.dumps(sent.request.parameters).decode(),
            response=response,
            measures=measures,
            deferred=deferred,
            notes=notes,
        )
        refusal = None if lane.trust.refuted else _runner_refusal(sent, verdict, attribution)
        if refusal is not None:
            ownerless = sent.overlapped and attribution.kind is not Kind.PROVEN
        unread_llm = lane.targeting.kind == "webhook" and unread and job.pipeline == "llm" and verdict.code == "500"
        is_unclear = verdict.code == "unclear" or (unread_llm and refusal is None)
        return Judged(result, ownerless, alive, exchange.ending is Ending.REFUSED, refusal, is_unclear)

    def _fetcher(self, lane: Lane) -> Callable[[str], Awaitable[Artefact]]:
        async def fetch(url: str) -> Artefact:
            return await lane.client.fetch(url, timeout_s=_ARTEFACT_TIMEOUT_S, max_body=self.bounds.max_artefact)

        return fetch


def _awaits_event(sent: Sent, gathered: evidence.Gathered) -> bool:
    """Tell whether an event of the gateway's would change what a job comes to, by its proof or by its cause."""
    if sent.exchange.ending in (Ending.ABORTED, Ending.REFUSED):
        return False
    if sent.overlapped and not gathered.proves:
        return True
    return not sent.exchange.looks_passed and not gathered.cause


def _with_line(attribution: Attribution, line: str) -> Attribution:
    return attribution.amended(attribution.kind, line) if line and line not in attribution.evidence else attribution


def _runner_refusal(sent: Sent, verdict: outcome.Verdict, attribution: Attribution) -> outcome.Verdict | None:
    """Return the runner's 400 where a gateway's 500 to an llm job may be one: the job has reached its orchestrator."""
    reached = sent.attempts.pattern is Pattern.REACHED or attribution.kind is Kind.PROVEN
    body = sent.exchange.body.strip()
    if verdict.code != "500" or sent.job.pipeline != "llm" or not (reached and attribution.scoreable):
        return None
    if body[:1] == b"<":  # a proxy's own
        return None
    text = body[:200].decode("utf-8", "replace")
    return outcome.verdict("400", f"The runner refused the input, which the gateway answers with 500: {text}")


def _as_the_gateway_follows(
    verdict: outcome.Verdict, attribution: Attribution, lane: Lane
) -> tuple[outcome.Verdict, Attribution]:
    """Return what a job came to in the light of what its gateway has done in this tick so far."""
    presumed = attribution.kind is Kind.PRESUMED
    if presumed and verdict.scored and lane.trust.refuted:
        line = "In this tick the gateway has used another orchestrator than the one it was told to"
        return outcome.verdict("unproven", f"{line}, so what nothing proves is not scored."), attribution
    if presumed and lane.trust.missing and verdict.code in _NOBODY_FOUND:
        line = "the gateway chooses orchestrators by itself"
        return outcome.verdict("not_targeted"), attribution.amended(Kind.MISSING, line)
    return verdict, attribution


def unowned(result: Result) -> Result:
    """Make the result of a job whose answer nobody could be shown to have given."""
    return replace(result, verdict=outcome.verdict("unproven"))


def _shown(body: bytes) -> str:
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
