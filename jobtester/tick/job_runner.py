"""The runner: one tick's jobs through all gateways, bounded, each settled exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending
from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result
from jobtester.errors import CrashBoundary, StoreError
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.trust import FLAGS
from jobtester.tick.attempt import JobAttempt, JudgedJob, SentJob, unattributed
from jobtester.tick.job_queue import JobQueue
from jobtester.tick.ports import Recorder, TickObserver
from jobtester.tick.slots import Broadcast

log = structlog.get_logger()

_UNCLEAR = ("unclear", "500")  # of jobs that run once more alone: these codes score nobody, so they stand
_ABORT_GRACE_S = 1.0  # how long a judgement may still take once running jobs are ended
_BURST = 8  # jobs that begin in one turn of the event loop, so that a full network's beginning holds nobody up


@dataclass(frozen=True, slots=True)
class JobLimits:
    """How much runs at once and how long things are waited for; times in seconds."""

    jobs: int = 16
    per_orchestrator: int = 1
    deadline_s: float = 3000.0
    busy_retries: int = 3
    busy_backoff_s: float = 15.0
    busy_patience_s: float = 15.0
    down_patience_s: float = 60.0
    probe_s: float = 2.0

    @property
    def busy_pause_s(self) -> float:
        """Give the longest pause before a busy orchestrator's next try where nothing else is left to do."""
        return self.busy_patience_s / max(1, self.busy_retries)


@dataclass(slots=True)
class JobRunner:
    """Runs the jobs of one plan. `stop()` lets nothing new begin; `abort()` ends what runs."""

    plan: Plan
    gateways: Sequence[Gateway]
    attempt: JobAttempt
    recorder: Recorder
    observer: TickObserver
    limits: JobLimits
    crashes: CrashBoundary = CrashBoundary()  # noqa: RUF009 - an immutable value
    _queue: JobQueue = field(init=False)
    _broadcast: Broadcast = field(default_factory=Broadcast)
    _slots: asyncio.Semaphore = field(init=False)
    _judging: asyncio.Semaphore = field(init=False)
    _busy_retries: dict[str, int] = field(default_factory=dict)
    _unproven: dict[str, Result] = field(default_factory=dict)
    _busy_results: dict[str, Result] = field(default_factory=dict)
    _serves_llm: set[str] = field(default_factory=set)
    _llm_refusals: dict[str, list[tuple[SentJob, Result, Result]]] = field(default_factory=dict)
    _final: bool = False
    _stop_reason: str = ""
    _aborted: bool = False
    _judgements: set[asyncio.Timeout] = field(default_factory=set)
    _waiting_to_send: set[asyncio.Timeout] = field(default_factory=set)
    _now: Callable[[], float] = field(init=False)
    unproven_count: int = 0

    async def run(self) -> None:
        """Send every job, judge and record it; return when each planned job is recorded or skipped with a reason."""
        self._now = asyncio.get_running_loop().time
        self._slots = asyncio.Semaphore(self.limits.jobs)
        self._judging = asyncio.Semaphore(4 * self.limits.jobs)
        deadline = asyncio.get_running_loop().call_later(self.limits.deadline_s, self.stop, "deadline")
        try:
            await self._pass(self.plan.jobs)
            if self._unproven:
                self._final = True
                again = [job for job in self.plan.jobs if job.id in self._unproven]
                self.unproven_count = len(again)
                log.info("running_alone", tick=self.plan.tick, jobs=len(again))
                for gateway in self.gateways:
                    gateway.disable_overlap()
                await self._pass(again)
            for result in self._unproven.values():
                await self._record(result if result.verdict.code in _UNCLEAR else unattributed(result))
            for gateway in self.gateways:
                await self._record_llm_refusals(gateway)
            for result in self._busy_results.values():
                await self._record(result)
        finally:
            deadline.cancel()

    def stop(self, reason: str) -> None:
        """Let no more jobs leave, not even those that wait for a turn; `reason` is a skip reason of plans."""
        self._stop_reason = self._stop_reason or reason
        for scope in self._waiting_to_send:
            scope.reschedule(asyncio.get_running_loop().time())
        for gateway in self.gateways:
            gateway.client.withdraw_unsent()
        self._broadcast.notify()

    def abort(self) -> None:
        """End running jobs now; they are recorded as unscored, reason shutdown, if anything can be recorded."""
        for gateway in self.gateways:
            gateway.client.abort()
        if not self._aborted:
            self._aborted = True
            for scope in self._judgements:
                scope.reschedule(asyncio.get_running_loop().time() + _ABORT_GRACE_S)
        self.recorder.give_up()

    async def _pass(self, jobs: Sequence[Job]) -> None:
        """Run these jobs; the second time one at a time on each orchestrator, so that questions can be told apart."""
        self._queue = JobQueue(jobs, per_orchestrator=1 if self._final else self.limits.per_orchestrator)
        async with asyncio.TaskGroup() as group:
            for gateway in self.gateways:
                group.create_task(self._work(gateway, group), name=f"gateway {gateway.name}")
            group.create_task(self._watch_gateways(), name="gateways watch")

    async def _work(self, gateway: Gateway, group: asyncio.TaskGroup) -> None:
        """Take jobs for one gateway as long as there are any."""
        begun = 0
        while not self._queue.is_finished:
            async with _held(self._slots) as slot:
                job = self._next(gateway)
                if job is not None:
                    slot.keep()
                    group.create_task(self._run_job(job, gateway), name=f"job {job.id}")
                    begun += 1
                    if begun % _BURST == 0:
                        await asyncio.sleep(0)
                    continue
            if self._queue.is_finished:  # what was left has just been given up, and nobody else will tell
                break
            gateway.targeting.release()
            self._queue.bring_forward(self._now() + self.limits.busy_pause_s)
            due = self._queue.next_due_at
            await self._broadcast.wait(None if due is None else max(0.0, due - self._now()))
        self._broadcast.notify()

    def _next(self, gateway: Gateway) -> Job | None:
        if self._stop_reason:
            self._skip_rest(self._stop_reason)
            return None
        if not gateway.is_usable:
            self._queue.release(gateway.name)
            return None
        if gateway.has_waiting_job or self.recorder.is_waiting:
            return None
        gateway.update_overlap()
        job = self._queue.take(gateway.name, now=self._now(), is_serial=gateway.is_serial, accepts=gateway.accepts)
        if job is not None:
            gateway.on_taken(job)
        return job

    async def _run_job(self, job: Job, gateway: Gateway) -> None:
        """Carry one job from its gateway to its record."""

        left = False

        def leaves() -> None:
            nonlocal left
            if self._stop_reason:
                raise _ClosedError
            left = True
            gateway.on_sent()
            self.observer.on_sent(job, gateway.name)
            self._broadcast.notify()

        try:
            started_at = time.time()
            with self.crashes.unit("job", expected=(StoreError,), tick=job.tick, job=job.id) as crash:
                async with self._judging:
                    try:
                        sent = await self._send(job, gateway, leaves)
                    finally:
                        if not left:
                            gateway.on_sent()
                        self._queue.on_answered(job)
                        gateway.on_answered(job)
                        self._slots.release()
                        self._broadcast.notify()
                    if sent is None:
                        self._queue.requeue(job)
                    else:
                        await self._settle(sent, gateway)
            if crash.error is not None:
                await self._record_crashed(job, gateway, started_at, crash.message)
        finally:
            self._broadcast.notify()

    async def _send(self, job: Job, gateway: Gateway, leaves: Callable[[], None]) -> SentJob | None:
        """Send a job when its turn comes; None if close() came before.

        Waiting for a lease can take longer than the grace of a stop, so close() ends the wait. Once the job has left,
        the scope is out of its reach.
        """
        try:
            async with asyncio.timeout(None) as scope:

                def begin() -> None:
                    leaves()
                    self._waiting_to_send.discard(scope)

                self._waiting_to_send.add(scope)
                try:
                    return await self.attempt.send(job, gateway, begin)
                finally:
                    self._waiting_to_send.discard(scope)
        except _ClosedError:
            return None
        except TimeoutError:
            if not scope.expired():
                raise
            return None

    async def _settle(self, sent: SentJob, gateway: Gateway) -> None:
        """Judge an answer and decide: record it, or have the job again."""
        job = sent.job
        if sent.exchange.ending is Ending.WITHDRAWN:
            self._requeue(job, gateway)
            return
        judged = await self._judge(sent, gateway)
        if judged is None:
            self._unproven.pop(job.id, None)
            self._busy_results.pop(job.id, None)
            await self._record(
                _unjudged(job, gateway, sent.exchange.started_at, sent.exchange.round_trip_s, "shutdown")
            )
            self._queue.on_settled(job)
            return
        if not judged.is_gateway_alive:
            self._mark_down(gateway)
            if judged.was_never_sent and not self._stop_reason:
                self._requeue(job, gateway)
                return
        if self._busy_again(judged, gateway):
            return
        result = judged.result
        if judged.is_unattributed or judged.is_unclear:
            if not self._final and not self._stop_reason:
                self._unproven[job.id] = result
                self._busy_results.pop(job.id, None)
                log.info("set_aside", tick=self.plan.tick, job=job.id, evidence=result.attribution.evidence)
                self.observer.on_deferred(job, gateway.name, "unclear" if judged.is_unclear else "unproven")
                self._queue.on_settled(job)
                return
            result = result if judged.is_unclear else unattributed(result)
        elif judged.runner_refusal is not None:
            refused = replace(result, verdict=judged.runner_refusal)
            if gateway.name not in self._serves_llm:
                self._unproven.pop(job.id, None)
                self._busy_results.pop(job.id, None)
                self._llm_refusals.setdefault(gateway.name, []).append((sent, result, refused))
                self._queue.on_settled(job)
                return
            result = refused
        self._unproven.pop(job.id, None)
        self._busy_results.pop(job.id, None)
        await self._finish(sent, result, gateway)
        if result.job.pipeline == "llm" and result.verdict.code == "ok":
            self._serves_llm.add(gateway.name)
            await self._record_llm_refusals(gateway)
        self._queue.on_settled(job)

    async def _finish(self, sent: SentJob, result: Result, gateway: Gateway) -> None:
        """Count who served, record the result, and add the evidence that came meanwhile."""
        self._count_attribution(result, gateway)
        await self._record(result)
        for testimony in gateway.evidence.on_recorded(sent.trace):
            await self.recorder.add_evidence(result.id, testimony)

    async def _record_llm_refusals(self, gateway: Gateway) -> None:
        """Record llm jobs that were answered with 500: as refused by their runners if the gateway has served llm.

        A refutation that came since they were judged takes away what was only presumed.
        """
        for sent, result, refused in self._llm_refusals.pop(gateway.name, []):
            is_trusted = refused.attribution.kind is AttributionKind.PROVEN or not gateway.trust.refuted
            is_refused = gateway.name in self._serves_llm and is_trusted
            await self._finish(sent, refused if is_refused else result, gateway)

    async def _judge(self, sent: SentJob, gateway: Gateway) -> JudgedJob | None:
        """Judge an answer; None if abort() came and the judgement did not end soon after."""
        try:
            async with asyncio.timeout(_ABORT_GRACE_S if self._aborted else None) as scope:
                self._judgements.add(scope)
                try:
                    return await self.attempt.judge(sent, gateway, deferred=self._busy_retries.get(sent.job.id, 0))
                finally:
                    self._judgements.discard(scope)
        except TimeoutError:
            if not scope.expired():
                raise
            return None

    def _requeue(self, job: Job, gateway: Gateway) -> None:
        """Take back a job that was on its way and never left."""
        self._queue.requeue(job)
        self.observer.on_deferred(job, gateway.name, "not_sent")

    async def _record_crashed(self, job: Job, gateway: Gateway, started_at: float, message: str) -> None:
        """Record a job that the tester itself failed at, and be done with it even if it cannot be recorded."""
        self._unproven.pop(job.id, None)
        self._busy_results.pop(job.id, None)
        took_s = max(0.001, time.time() - started_at)
        result = _unjudged(job, gateway, started_at, took_s, "tester_fault", message)
        with self.crashes.unit("job", expected=(StoreError,), tick=job.tick, job=job.id):
            await self._record(result)
        self._queue.on_settled(job)

    async def _record(self, result: Result) -> None:
        await self.recorder.record(result)
        self.observer.on_recorded(result)

    def _busy_again(self, judged: JudgedJob, gateway: Gateway) -> bool:
        """Put a busy orchestrator's job off to later in the tick, within bounds; what it came to counts till then."""
        job = judged.result.job
        times = self._busy_retries.get(job.id, 0)
        if judged.result.verdict.code != "busy" or times >= self.limits.busy_retries or self._stop_reason:
            return False
        self._busy_retries[job.id] = times + 1
        self._busy_results[job.id] = judged.result
        self._unproven.pop(job.id, None)
        self.observer.on_deferred(job, gateway.name, "busy")
        self._queue.defer(job, self._now() + self.limits.busy_backoff_s * 2**times)
        return True

    def _count_attribution(self, result: Result, gateway: Gateway) -> None:
        """Count who served, and say loudly once that a gateway does not follow."""
        code, kind = result.verdict.code, result.attribution.kind
        if code not in ("not_targeted", "refuted") and not result.verdict.scored:
            return
        first = gateway.trust.count(kind)
        if kind is AttributionKind.REFUTED:
            log.error(
                "refuted", tick=self.plan.tick, job=result.id, gateway=gateway.name,
                orchestrator=result.job.orchestrator.address, evidence=result.attribution.evidence,
            )  # fmt: skip
        if first and code == "not_targeted":
            log.error(
                "not_a_tester_gateway", tick=self.plan.tick, gateway=gateway.name,
                problem="it answered a job without asking whom to use, so nobody knows who served it; nothing of this "
                f"is posted. Run it with {FLAGS}",
            )  # fmt: skip

    def _mark_down(self, gateway: Gateway) -> None:
        if not gateway.is_down:
            gateway.is_down = True
            log.error("gateway_lost", tick=self.plan.tick, gateway=gateway.name, url=gateway.client.url)
            self._broadcast.notify()

    async def _watch_gateways(self) -> None:
        """Bring lost gateways back when they answer again; give up what nobody can take any more."""
        since: float | None = None
        while not self._queue.is_finished:
            lost = [gateway for gateway in self.gateways if gateway.is_down]
            for gateway in lost:
                alive = False
                with self.crashes.unit("probe", gateway=gateway.name):
                    alive = await gateway.client.is_alive()
                if alive:
                    gateway.is_down = False
                    log.info("gateway_back", tick=self.plan.tick, gateway=gateway.name)
                    self._broadcast.notify()
            usable = any(gateway.is_usable for gateway in self.gateways)
            since = None if usable else since if since is not None else self._now()
            if since is not None and not any(gateway.is_down for gateway in self.gateways):
                self._skip_rest("not_targeted")
            elif since is not None and self._now() - since >= self.limits.down_patience_s:
                self._skip_rest("gateway_lost")
            await self._broadcast.wait(self.limits.probe_s if lost else None)

    def _skip_rest(self, reason: str) -> None:
        """Give up every job that has not begun; what was set aside or put off keeps its answer, unscored."""
        for job in self._queue.drain():
            if job.id in self._unproven or job.id in self._busy_results:
                continue
            self.observer.on_skipped(
                Skip(job.orchestrator.address, job.orchestrator.service_uri, job.pipeline, job.model, reason)
            )
        self._broadcast.notify()


def _unjudged(
    job: Job, gateway: Gateway, started_at: float, round_trip_s: float, reason: str, message: str = ""
) -> Result:
    """Return the result of a job that was not judged because of the tester itself."""
    return Result(
        job=job,
        verdict=Verdict.from_code(reason, message),
        attribution=Attribution(AttributionKind.MISSING),
        gateway=gateway.name,
        targeting=gateway.targeting.kind,
        started_at=started_at,
        round_trip_s=round_trip_s,
    )


class _ClosedError(Exception):
    """No further job may leave."""


class _held:
    """Hold a slot for the length of a block, unless it is kept for a task that gives it back."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._kept = False

    def keep(self) -> None:
        """Leave the slot to somebody else."""
        self._kept = True

    async def __aenter__(self) -> _held:
        await self._slots.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._kept:
            self._slots.release()
