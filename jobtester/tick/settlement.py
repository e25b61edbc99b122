"""Carry out the decisions about judged jobs: record each result once, or run the job again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result
from jobtester.gateway.gateway import TESTER_FLAGS
from jobtester.gateway.peer import JobPeer
from jobtester.tick.attempt import JudgedJob, SentJob
from jobtester.tick.decision import AwaitLlm, JobHistory, Requeue, RetryExclusively, RetryLater, as_unproven, decide
from jobtester.tick.job_queue import JobQueue
from jobtester.tick.progress import TickObserver
from jobtester.tick.recorder import Recorder, add_late_evidence

log = structlog.get_logger()

_KEPT_IF_UNPROVEN = ("unclear", "500")  # these codes score nobody, so they may stand for a job that nothing proves


@dataclass(frozen=True, slots=True)
class _InterimResult:
    """The result of a job that is to run once more; it is recorded if that does not happen."""

    result: Result
    is_unproven: bool = False

    @property
    def final(self) -> Result:
        """The result to record if the job does not run again; that of an unproven job is `unproven`."""
        keeps_verdict = not self.is_unproven or self.result.verdict.code in _KEPT_IF_UNPROVEN
        return self.result if keeps_verdict else as_unproven(self.result)


class JobSettlement:
    """Settles the jobs of one tick, and remembers what their next run depends on."""

    def __init__(
        self, tick: str, recorder: Recorder, observer: TickObserver, *, max_busy_retries: int, busy_backoff_s: float
    ) -> None:
        """Start with no job settled; `busy_backoff_s` is the first pause for a busy orchestrator, in seconds."""
        self.is_last_pass = False
        self.is_stopping = False
        self._tick = tick
        self._recorder = recorder
        self._observer = observer
        self._max_busy_retries = max_busy_retries
        self._busy_backoff_s = busy_backoff_s
        # By job: how often it was busy, and its result while it is to run once more.
        self._busy_retries: dict[str, int] = {}
        self._interim: dict[str, _InterimResult] = {}
        # By gateway: whether it has served llm, and the results that depend on that.
        self._serves_llm: set[str] = set()
        self._awaiting_llm: dict[str, list[tuple[SentJob, AwaitLlm]]] = {}

    def busy_retries(self, job: Job) -> int:
        """Return how often a busy orchestrator has sent this job away."""
        return self._busy_retries.get(job.id, 0)

    def has_interim_result(self, job: Job) -> bool:
        """Return True if an earlier result is recorded should the job not run again."""
        return job.id in self._interim

    def is_unproven(self, job: Job) -> bool:
        """Return True if a job is to run again with no other job beside it."""
        interim = self._interim.get(job.id)
        return interim is not None and interim.is_unproven

    async def settle(self, sent: SentJob, judged: JudgedJob, gateway: JobPeer, queue: JobQueue, now: float) -> None:
        """Record a judged job, or put it back into the queue; `now` is the event loop's time in seconds."""
        job = sent.job
        decision = decide(judged, self._history(job, gateway))
        if isinstance(decision, Requeue):
            self.requeue(job, gateway, queue)
        elif isinstance(decision, RetryLater):
            self._busy_retries[job.id] = self.busy_retries(job) + 1
            self._interim[job.id] = _InterimResult(judged.result)
            self._observer.on_deferred(job, gateway.name, "busy")
            queue.defer(job, now + decision.pause_s)
        elif isinstance(decision, RetryExclusively):
            self._interim[job.id] = _InterimResult(judged.result, is_unproven=True)
            log.info("job_unproven", tick=self._tick, job=job.id, evidence=judged.result.attribution.evidence)
            self._observer.on_deferred(job, gateway.name, decision.reason)
            queue.on_settled(job)
        elif isinstance(decision, AwaitLlm):
            self._interim.pop(job.id, None)
            self._awaiting_llm.setdefault(gateway.name, []).append((sent, decision))
            queue.on_settled(job)
        else:
            self._interim.pop(job.id, None)
            await self._record_attributed(sent, decision.result, gateway)
            if job.pipeline == "llm" and decision.result.verdict.code == "ok":
                self._serves_llm.add(gateway.name)
                await self._record_awaiting_llm(gateway)
            queue.on_settled(job)

    def requeue(self, job: Job, gateway: JobPeer, queue: JobQueue) -> None:
        """Take back a job that was on its way and never left."""
        queue.requeue(job)
        self._observer.on_deferred(job, gateway.name, "not_sent")

    async def record_unjudged(
        self, job: Job, gateway: JobPeer, reason: str, *, started_at: float, round_trip_s: float, message: str = ""
    ) -> None:
        """Record a job that was not judged because of the tester itself, in place of any earlier result."""
        self._interim.pop(job.id, None)
        result = Result(
            job=job,
            verdict=Verdict.from_code(reason, message),
            attribution=Attribution(AttributionKind.MISSING),
            gateway=gateway.name,
            targeting=gateway.targeting.kind,
            started_at=started_at,
            round_trip_s=round_trip_s,
        )
        await self._record(result)

    async def record_rest(self, gateways: Iterable[JobPeer]) -> None:
        """Record everything that waited for another run, or for the first llm job that passes; the tick is over."""
        for gateway in gateways:
            await self._record_awaiting_llm(gateway)
        while self._interim:
            _, interim = self._interim.popitem()
            await self._record(interim.final)

    def _history(self, job: Job, gateway: JobPeer) -> JobHistory:
        return JobHistory(
            busy_retries=self.busy_retries(job),
            max_busy_retries=self._max_busy_retries,
            busy_backoff_s=self._busy_backoff_s,
            is_last_pass=self.is_last_pass,
            is_stopping=self.is_stopping,
            gateway_serves_llm=gateway.name in self._serves_llm,
        )

    async def _record_awaiting_llm(self, gateway: JobPeer) -> None:
        """Record llm jobs that were answered with 500: as refused by their runners if the gateway has served llm.

        If the gateway was caught using somebody else since they were judged, only proven refusals still count.
        """
        for sent, decision in self._awaiting_llm.pop(gateway.name, []):
            is_proven = decision.refused.attribution.kind is AttributionKind.PROVEN
            is_refused = gateway.name in self._serves_llm and (is_proven or not gateway.trust.refuted)
            await self._record_attributed(sent, decision.refused if is_refused else decision.result, gateway)

    async def _record_attributed(self, sent: SentJob, result: Result, gateway: JobPeer) -> None:
        """Count who served, record the result, and add the evidence that came meanwhile."""
        self._count_attribution(result, gateway)
        await self._record(result)
        for item in gateway.evidence.on_recorded(sent.trace) if sent.trace is not None else ():
            await add_late_evidence(self._recorder, gateway, result.id, item)

    async def _record(self, result: Result) -> None:
        await self._recorder.record(result)
        self._observer.on_recorded(result)

    def _count_attribution(self, result: Result, gateway: JobPeer) -> None:
        """Count who served; log each refutation, and once that a gateway does not use whom the webhook names."""
        code, kind = result.verdict.code, result.attribution.kind
        if code not in ("not_targeted", "refuted") and not result.verdict.scored:
            return
        is_first = gateway.trust.count(kind)
        if kind is AttributionKind.REFUTED:
            log.error(
                "attribution_refuted",
                tick=self._tick,
                job=result.id,
                gateway=gateway.name,
                orchestrator=result.job.orchestrator.address,
                evidence=result.attribution.evidence,
            )
        if is_first and code == "not_targeted":
            problem = (
                "it answered a job without asking whom to use, so nobody knows who served it; nothing of this is "
                f"posted. Run it with {TESTER_FLAGS}"
            )
            log.error("gateway_not_following", tick=self._tick, gateway=gateway.name, problem=problem)
