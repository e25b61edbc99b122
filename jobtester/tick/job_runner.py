"""Run one tick's jobs through all gateways, bounded, and record each exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import structlog

from jobtester.crash_boundary import CrashBoundary
from jobtester.domain.exchanges import Ending
from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip
from jobtester.errors import StoreError
from jobtester.gateway.peer import JobPeer, Walk
from jobtester.settings.model import Settings
from jobtester.tick.attempt import JobAttempt, JudgedJob, SentJob
from jobtester.tick.gateway_watch import GatewayWatch
from jobtester.tick.job_queue import Broadcast, JobQueue
from jobtester.tick.progress import TickObserver
from jobtester.tick.recorder import Recorder
from jobtester.tick.settlement import JobSettlement

log = structlog.get_logger()

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

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the limits of a configuration."""
        limits = settings.limits
        return cls(
            jobs=limits.jobs,
            per_orchestrator=limits.per_orchestrator,
            deadline_s=settings.schedule.deadline,
            busy_retries=limits.busy_retries,
            busy_backoff_s=limits.busy_backoff,
            busy_patience_s=limits.busy_patience,
        )

    @property
    def busy_pause_s(self) -> float:
        """The longest pause before a busy orchestrator's next try where nothing else is left to do, in seconds."""
        return self.busy_patience_s / max(1, self.busy_retries)


class JobRunner:
    """Runs the jobs of one plan: `stop()` lets nothing new begin, `abort()` ends what runs."""

    def __init__(
        self,
        plan: Plan,
        gateways: Sequence[JobPeer],
        attempts: Mapping[Walk, JobAttempt[Any]],
        recorder: Recorder,
        observer: TickObserver,
        limits: JobLimits,
        crashes: CrashBoundary | None = None,
    ) -> None:
        """Take the plan; nothing runs before run(). The orchestrators themselves may be among the gateways."""
        self._plan = plan
        self._gateways = gateways
        self._attempts = attempts
        self._recorder = recorder
        self._observer = observer
        self._limits = limits
        self._settlement = JobSettlement(
            plan.tick,
            recorder,
            observer,
            max_busy_retries=limits.busy_retries,
            busy_backoff_s=limits.busy_backoff_s,
        )
        self._crashes = crashes or CrashBoundary()
        self._queue = JobQueue((), per_orchestrator=limits.per_orchestrator)
        self._broadcast = Broadcast()
        self._slots = asyncio.Semaphore(limits.jobs)
        self._judging = asyncio.Semaphore(4 * limits.jobs)
        self._stop_reason = ""
        self._is_aborted = False
        # The waits that stop() and abort() end.
        self._waiting_to_send: set[asyncio.Timeout] = set()
        self._judgements: set[asyncio.Timeout] = set()

    async def run(self) -> None:
        """Send every job, judge and record it; return when each planned job is recorded or skipped with a reason."""
        deadline = asyncio.get_running_loop().call_later(self._limits.deadline_s, self.stop, "deadline")
        try:
            await self._run_pass(self._plan.jobs)
            unproven = [job for job in self._plan.jobs if self._settlement.is_unproven(job)]
            if unproven:
                self._settlement.is_last_pass = True
                log.info("unproven_jobs_rerun", tick=self._plan.tick, jobs=len(unproven))
                for gateway in self._gateways:
                    gateway.disable_overlap()
                await self._run_pass(unproven)
            await self._settlement.record_rest(self._gateways)
        finally:
            deadline.cancel()

    def stop(self, reason: str) -> None:
        """Send no more jobs, not even those that wait for a turn; `reason` is a skip reason of plans."""
        self._stop_reason = self._stop_reason or reason
        self._settlement.is_stopping = True
        for scope in self._waiting_to_send:
            scope.reschedule(_now())
        for gateway in self._gateways:
            gateway.client.sender.withdraw_unsent()
        self._broadcast.notify()

    def abort(self) -> None:
        """End running jobs now; they are recorded as unscored, reason shutdown, if anything can be recorded."""
        for gateway in self._gateways:
            gateway.client.sender.abort()
        for attempt in self._attempts.values():
            attempt.abort()
        if not self._is_aborted:
            self._is_aborted = True
            for scope in self._judgements:
                scope.reschedule(_now() + _ABORT_GRACE_S)
        self._recorder.give_up()

    async def _run_pass(self, jobs: Sequence[Job]) -> None:
        """Run these jobs; in the last pass one at a time on each orchestrator, so that questions can be told apart."""
        per_orchestrator = 1 if self._settlement.is_last_pass else self._limits.per_orchestrator
        self._queue = JobQueue(jobs, per_orchestrator=per_orchestrator)
        async with asyncio.TaskGroup() as group:
            for gateway in self._gateways:
                group.create_task(self._take_jobs(gateway, group), name=f"gateway {gateway.name}")
            group.create_task(self._watch_gateways(), name="gateway watch")

    async def _take_jobs(self, gateway: JobPeer, group: asyncio.TaskGroup) -> None:
        """Take jobs for one gateway as long as there are any."""
        started = 0
        while not self._queue.is_finished:
            await self._slots.acquire()
            job = self._next_job(gateway)
            if job is not None:  # its task gives the slot back
                group.create_task(self._run_job(job, gateway), name=f"job {job.id}")
                started += 1
                if started % _BURST == 0:
                    await asyncio.sleep(0)
                continue
            self._slots.release()
            if self._queue.is_finished:  # what was left has just been given up, and nobody else will tell
                break
            gateway.targeting.release()
            self._queue.bring_forward(_now() + self._limits.busy_pause_s)
            due = self._queue.next_due_at
            await self._broadcast.wait(None if due is None else max(0.0, due - _now()))
        self._broadcast.notify()

    def _next_job(self, gateway: JobPeer) -> Job | None:
        if self._stop_reason:
            self._skip_rest(self._stop_reason)
            return None
        if not gateway.is_usable:
            self._queue.release(gateway.name)
            return None
        if gateway.has_waiting_job or self._recorder.is_waiting:
            return None
        gateway.update_overlap()
        job = self._queue.take(gateway.name, now=_now(), is_serial=gateway.is_serial, accepts=gateway.accepts)
        if job is not None:
            gateway.on_taken(job)
        return job

    async def _run_job(self, job: Job, gateway: JobPeer) -> None:
        """Carry one job from its gateway to its record."""
        started_at = time.time()
        try:
            with self._crashes.unit("job", expected=(StoreError,), tick=job.tick, job=job.id) as crash:
                # More jobs may be judged than sent, but not without bound: each holds its answer in memory.
                async with self._judging:
                    sent = await self._send(job, gateway)
                    if sent is None:
                        self._queue.requeue(job)
                    else:
                        await self._settle(sent, gateway)
            if crash.error is not None:
                await self._record_crashed(job, gateway, started_at, crash.message)
        finally:
            self._broadcast.notify()

    async def _send(self, job: Job, gateway: JobPeer) -> SentJob | None:
        """Send a job when its turn comes; None if stop() came before."""
        has_left = False

        def on_leaving() -> None:
            nonlocal has_left
            if self._stop_reason:
                raise _StoppedError
            has_left = True
            self._waiting_to_send.discard(scope)  # from here on stop() lets it go on
            gateway.on_sent()
            self._observer.on_sent(job, gateway.name)
            self._broadcast.notify()

        try:
            # Waiting for a lease can take longer than the grace of a stop, so stop() ends the wait.
            async with _scope(self._waiting_to_send) as scope:
                sent: SentJob = await self._attempts[gateway.walk(job)].send(job, gateway, on_leaving)
                return sent
        except _StoppedError:
            return None
        except TimeoutError:
            if not scope.expired():
                raise
            return None
        finally:
            if not has_left:
                gateway.on_sent()
            self._queue.on_answered(job)
            gateway.on_answered(job)
            self._slots.release()
            self._broadcast.notify()

    async def _settle(self, sent: SentJob, gateway: JobPeer) -> None:
        """Judge an answer and carry out what is decided about the job."""
        if sent.exchange.ending is Ending.WITHDRAWN:
            self._settlement.requeue(sent.job, gateway, self._queue)
            return
        judged = await self._judge(sent, gateway)
        if judged is None:
            started_at, round_trip_s = sent.exchange.started_at, sent.exchange.round_trip_s
            await self._settlement.record_unjudged(
                sent.job, gateway, "shutdown", started_at=started_at, round_trip_s=round_trip_s
            )
            self._queue.on_settled(sent.job)
            return
        if not judged.is_gateway_alive and not gateway.is_down:
            gateway.is_down = True
            log.error("gateway_down", tick=self._plan.tick, gateway=gateway.name, url=gateway.client.url)
            self._broadcast.notify()
        await self._settlement.settle(sent, judged, gateway, self._queue, _now())

    async def _judge(self, sent: SentJob, gateway: JobPeer) -> JudgedJob | None:
        """Judge an answer; None if abort() came and the judgement did not end soon after."""
        try:
            async with _scope(self._judgements, _ABORT_GRACE_S if self._is_aborted else None) as scope:
                attempt = self._attempts[gateway.walk(sent.job)]
                return await attempt.judge(sent, gateway, busy_retries=self._settlement.busy_retries(sent.job))
        except TimeoutError:
            if not scope.expired():
                raise
            return None

    async def _record_crashed(self, job: Job, gateway: JobPeer, started_at: float, message: str) -> None:
        """Record a job that the tester itself failed at, and be done with it even if it cannot be recorded."""
        duration_s = max(0.001, time.time() - started_at)
        with self._crashes.unit("job", expected=(StoreError,), tick=job.tick, job=job.id):
            await self._settlement.record_unjudged(
                job, gateway, "tester_fault", started_at=started_at, round_trip_s=duration_s, message=message
            )
        self._queue.on_settled(job)

    async def _watch_gateways(self) -> None:
        """Bring back gateways that answer again; give up the jobs that no gateway can take any more."""
        gateways = [gateway for gateway in self._gateways if not gateway.is_direct]
        watch = GatewayWatch(gateways, self._limits.down_patience_s, self._limits.probe_s)
        while not self._queue.is_finished:
            for gateway in gateways:
                if gateway.is_down:
                    await self._probe(gateway)
            if watch.update(_now()):
                for reason in ("gateway_lost", "not_targeted"):
                    self._skip_rest(reason, partial(watch.is_skipped, reason))
            await self._broadcast.wait(self._limits.probe_s if watch.is_any_unusable else None)

    async def _probe(self, gateway: JobPeer) -> None:
        is_alive = False
        with self._crashes.unit("probe", gateway=gateway.name):
            is_alive = await gateway.client.is_alive()
        if is_alive:
            gateway.is_down = False
            log.info("gateway_recovered", tick=self._plan.tick, gateway=gateway.name)
            self._broadcast.notify()

    def _skip_rest(self, reason: str, matches: Callable[[Job], bool] = lambda _job: True) -> None:
        """Skip every job that matches and has not begun; one that has an interim result is recorded with that."""
        jobs = self._queue.drain(matches)
        for job in jobs:
            if not self._settlement.has_interim_result(job):
                self._observer.on_skipped(Skip(*job.target, job.pipeline, job.model, reason, job.capability))
        if jobs or self._queue.is_finished:
            self._broadcast.notify()


@asynccontextmanager
async def _scope(scopes: set[asyncio.Timeout], timeout_s: float | None = None) -> AsyncIterator[asyncio.Timeout]:
    """Run a block that others may end by rescheduling the timeout, which is among `scopes` meanwhile."""
    async with asyncio.timeout(timeout_s) as scope:
        scopes.add(scope)
        try:
            yield scope
        finally:
            scopes.discard(scope)


def _now() -> float:
    return asyncio.get_running_loop().time()


class _StoppedError(Exception):
    """No further job may leave."""
