"""The runner: one tick's jobs through all lanes, bounded, each settled exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from jobtester.crashes import CrashBoundary
from jobtester.domain import outcome
from jobtester.domain.attribution import Attribution, Kind
from jobtester.domain.exchanges import Ending
from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.results import Result
from jobtester.errors import StoreError
from jobtester.gateway.lane import Lane
from jobtester.gateway.trust import FLAGS
from jobtester.tick.board import Board
from jobtester.tick.ports import Recorder, Watcher
from jobtester.tick.slots import Changes
from jobtester.tick.trial import Judged, Sent, Trial, unowned

log = structlog.get_logger()

_UNCLEAR = ("unclear", "500")  # of jobs that run once more alone: these codes score nobody, so they stand
_LAST_S = 1.0  # how long a judgement may still take once running jobs are ended
_BURST = 8  # jobs that begin in one turn of the event loop, so that a full network's beginning holds nobody up


@dataclass(frozen=True, slots=True)
class Pace:
    """How much runs at once and how long things are waited for; times in seconds."""

    jobs: int = 16
    per_orchestrator: int = 1
    deadline_s: float = 3000.0
    busy_retries: int = 3
    busy_backoff_s: float = 15.0
    busy_patience_s: float = 15.0
    lost_patience_s: float = 60.0
    probe_s: float = 2.0

    @property
    def busy_pause_s(self) -> float:
        """Give the longest pause before a busy orchestrator's next try where nothing else is left to do."""
        return self.busy_patience_s / max(1, self.busy_retries)


@dataclass(slots=True)
class Runner:
    """Runs the jobs of one plan. `stop()` lets nothing new begin; `abort()` ends what runs."""

    plan: Plan
    lanes: Sequence[Lane]
    trial: Trial
    recorder: Recorder
    watcher: Watcher
    pace: Pace
    crashes: CrashBoundary = CrashBoundary()  # noqa: RUF009 - an immutable value
    _board: Board = field(init=False)
    _changes: Changes = field(default_factory=Changes)
    _slots: asyncio.Semaphore = field(init=False)
    _judging: asyncio.Semaphore = field(init=False)
    _deferrals: dict[str, int] = field(default_factory=dict)
    _aside: dict[str, Result] = field(default_factory=dict)
    _put_off: dict[str, Result] = field(default_factory=dict)
    _serves_llm: set[str] = field(default_factory=set)
    _llm_refusals: dict[str, list[tuple[Sent, Result, Result]]] = field(default_factory=dict)
    _final: bool = False
    _closed: str = ""
    _aborted: bool = False
    _judgements: set[asyncio.Timeout] = field(default_factory=set)
    _waiting_to_send: set[asyncio.Timeout] = field(default_factory=set)
    _now: Callable[[], float] = field(init=False)
    aside_count: int = 0

    async def run(self) -> None:
        """Send every job, judge and record it; return when each planned job is recorded or skipped with a reason."""
        self._now = asyncio.get_running_loop().time
        self._slots = asyncio.Semaphore(self.pace.jobs)
        self._judging = asyncio.Semaphore(4 * self.pace.jobs)
        deadline = asyncio.get_running_loop().call_later(self.pace.deadline_s, self.close, "deadline")
        try:
            await self._pass(self.plan.jobs)
            if self._aside:
                self._final = True
                again = [job for job in self.plan.jobs if job.id in self._aside]
                self.aside_count = len(again)
                log.info("running_alone", tick=self.plan.tick, jobs=len(again))
                for lane in self.lanes:
                    lane.run_alone()
                await self._pass(again)
            for result in self._aside.values():
                await self._record(result if result.verdict.code in _UNCLEAR else unowned(result))
            for lane in self.lanes:
                await self._record_llm_refusals(lane)
            for result in self._put_off.values():
                await self._record(result)
        finally:
            deadline.cancel()

    def close(self, reason: str) -> None:
        """Let no more jobs leave, not even those that wait for a turn; `reason` is a skip reason of plans."""
        self._closed = self._closed or reason
        for scope in self._waiting_to_send:
            scope.reschedule(asyncio.get_running_loop().time())
        for lane in self.lanes:
            lane.client.withdraw_unsent()
        self._changes.announce()

    def abort(self) -> None:
        """End running jobs now; they are recorded as unscored, reason shutdown, if anything can be recorded."""
        for lane in self.lanes:
            lane.client.abort()
        if not self._aborted:
            self._aborted = True
            for scope in self._judgements:
                scope.reschedule(asyncio.get_running_loop().time() + _LAST_S)
        self.recorder.give_up()

    async def _pass(self, jobs: Sequence[Job]) -> None:
        """Run these jobs; the second time one at a time on each orchestrator, so that questions can be told apart."""
        self._board = Board(jobs, per_orchestrator=1 if self._final else self.pace.per_orchestrator)
        async with asyncio.TaskGroup() as group:
            for lane in self.lanes:
                group.create_task(self._work(lane, group), name=f"lane {lane.name}")
            group.create_task(self._watch_over(), name="lanes watch")

    async def _work(self, lane: Lane, group: asyncio.TaskGroup) -> None:
        """Take jobs for one lane as long as there are any."""
        begun = 0
        while not self._board.over:
            async with _held(self._slots) as slot:
                job = self._next(lane)
                if job is not None:
                    slot.keep()
                    group.create_task(self._one(job, lane), name=f"job {job.id}")
                    begun += 1
                    if begun % _BURST == 0:
                        await asyncio.sleep(0)
                    continue
            if self._board.over:  # what was left has just been given up, and nobody else will tell
                break
            lane.targeting.rest()
            self._board.hasten(self._now() + self.pace.busy_pause_s)
            due = self._board.next_due
            await self._changes.wait(None if due is None else max(0.0, due - self._now()))
        self._changes.announce()

    def _next(self, lane: Lane) -> Job | None:
        if self._closed:
            self._skip_rest(self._closed)
            return None
        if not lane.usable:
            self._board.let_go(lane.name)
            return None
        if lane.waits_for_turn or self.recorder.waits:
            return None
        lane.refresh()
        job = self._board.take(lane.name, now=self._now(), serial=lane.serial, suits=lane.suits)
        if job is not None:
            lane.took(job)
        return job

    async def _one(self, job: Job, lane: Lane) -> None:
        """Carry one job from its lane to its record."""

        left = False

        def leaves() -> None:
            nonlocal left
            if self._closed:
                raise _ClosedError
            left = True
            lane.sent()
            self.watcher.sent(job, lane.name)
            self._changes.announce()

        try:
            started_at = time.time()
            with self.crashes.unit("job", expected=(StoreError,), tick=job.tick, job=job.id) as crash:
                async with self._judging:
                    try:
                        sent = await self._send(job, lane, leaves)
                    finally:
                        if not left:
                            lane.sent()
                        self._board.answered(job)
                        lane.answered(job)
                        self._slots.release()
                        self._changes.announce()
                    if sent is None:
                        self._board.put_back(job)
                    else:
                        await self._settle(sent, lane)
            if crash.error is not None:
                await self._record_crashed(job, lane, started_at, crash.message)
        finally:
            self._changes.announce()

    async def _send(self, job: Job, lane: Lane, leaves: Callable[[], None]) -> Sent | None:
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
                    return await self.trial.send(job, lane, begin)
                finally:
                    self._waiting_to_send.discard(scope)
        except _ClosedError:
            return None
        except TimeoutError:
            if not scope.expired():
                raise
            return None

    async def _settle(self, sent: Sent, lane: Lane) -> None:
        """Judge an answer and decide: record it, or have the job again."""
        job = sent.job
        if sent.exchange.ending is Ending.WITHDRAWN:
            self._requeue(job, lane)
            return
        judged = await self._judge(sent, lane)
        if judged is None:
            self._aside.pop(job.id, None)
            self._put_off.pop(job.id, None)
            await self._record(_unjudged(job, lane, sent.exchange.started_at, sent.exchange.round_trip_s, "shutdown"))
            self._board.settled(job)
            return
        if not judged.gateway_alive:
            self._lose(lane)
            if judged.never_sent and not self._closed:
                self._requeue(job, lane)
                return
        if self._busy_again(judged, lane):
            return
        result = judged.result
        if judged.ownerless or judged.is_unclear:
            if not self._final and not self._closed:
                self._aside[job.id] = result
                self._put_off.pop(job.id, None)
                log.info("set_aside", tick=self.plan.tick, job=job.id, evidence=result.attribution.evidence)
                self.watcher.deferred(job, lane.name, "unclear" if judged.is_unclear else "set aside")
                self._board.settled(job)
                return
            result = result if judged.is_unclear else unowned(result)
        elif judged.runner_refusal is not None:
            refused = replace(result, verdict=judged.runner_refusal)
            if lane.name not in self._serves_llm:
                self._aside.pop(job.id, None)
                self._put_off.pop(job.id, None)
                self._llm_refusals.setdefault(lane.name, []).append((sent, result, refused))
                self._board.settled(job)
                return
            result = refused
        self._aside.pop(job.id, None)
        self._put_off.pop(job.id, None)
        await self._finish(sent, result, lane)
        if result.job.pipeline == "llm" and result.verdict.code == "ok":
            self._serves_llm.add(lane.name)
            await self._record_llm_refusals(lane)
        self._board.settled(job)

    async def _finish(self, sent: Sent, result: Result, lane: Lane) -> None:
        """Count who served, record the result, and add the evidence that came meanwhile."""
        self._weigh(result, lane)
        await self._record(result)
        for testimony in lane.evidence.recorded(sent.life):
            await self.recorder.amend(result.id, testimony)

    async def _record_llm_refusals(self, lane: Lane) -> None:
        """Record llm jobs that were answered with 500: as refused by their runners if the gateway has served llm.

        A refutation that came since they were judged takes away what was only presumed.
        """
        for sent, result, refused in self._llm_refusals.pop(lane.name, []):
            is_trusted = refused.attribution.kind is Kind.PROVEN or not lane.trust.refuted
            is_refused = lane.name in self._serves_llm and is_trusted
            await self._finish(sent, refused if is_refused else result, lane)

    async def _judge(self, sent: Sent, lane: Lane) -> Judged | None:
        """Judge an answer; None if abort() came and the judgement did not end soon after."""
        try:
            async with asyncio.timeout(_LAST_S if self._aborted else None) as scope:
                self._judgements.add(scope)
                try:
                    return await self.trial.judge(sent, lane, deferred=self._deferrals.get(sent.job.id, 0))
                finally:
                    self._judgements.discard(scope)
        except TimeoutError:
            if not scope.expired():
                raise
            return None

    def _requeue(self, job: Job, lane: Lane) -> None:
        """Take back a job that was on its way and never left."""
        self._board.put_back(job)
        self.watcher.deferred(job, lane.name, "not sent")

    async def _record_crashed(self, job: Job, lane: Lane, started_at: float, message: str) -> None:
        """Record a job that the tester itself failed at, and be done with it even if it cannot be recorded."""
        self._aside.pop(job.id, None)
        self._put_off.pop(job.id, None)
        took_s = max(0.001, time.time() - started_at)
        result = _unjudged(job, lane, started_at, took_s, "tester_fault", message)
        with self.crashes.unit("job", expected=(StoreError,), tick=job.tick, job=job.id):
            await self._record(result)
        self._board.settled(job)

    async def _record(self, result: Result) -> None:
        await self.recorder.record(result)
        self.watcher.recorded(result)

    def _busy_again(self, judged: Judged, lane: Lane) -> bool:
        """Put a busy orchestrator's job off to later in the tick, within bounds; what it came to counts till then."""
        job = judged.result.job
        times = self._deferrals.get(job.id, 0)
        if judged.result.verdict.code != "busy" or times >= self.pace.busy_retries or self._closed:
            return False
        self._deferrals[job.id] = times + 1
        self._put_off[job.id] = judged.result
        self._aside.pop(job.id, None)
        self.watcher.deferred(job, lane.name, "busy")
        self._board.defer(job, self._now() + self.pace.busy_backoff_s * 2**times)
        return True

    def _weigh(self, result: Result, lane: Lane) -> None:
        """Count who served, and say loudly once that a gateway does not follow."""
        code, kind = result.verdict.code, result.attribution.kind
        if code not in ("not_targeted", "refuted") and not result.verdict.scored:
            return
        first = lane.trust.saw(kind)
        if kind is Kind.REFUTED:
            log.error(
                "refuted", tick=self.plan.tick, job=result.id, gateway=lane.name,
                orchestrator=result.job.orchestrator.address, evidence=result.attribution.evidence,
            )  # fmt: skip
        if first and code == "not_targeted":
            log.error(
                "not_a_tester_gateway", tick=self.plan.tick, gateway=lane.name,
                problem="it answered a job without asking whom to use, so nobody knows who served it; nothing of this "
                f"is posted. Run it with {FLAGS}",
            )  # fmt: skip

    def _lose(self, lane: Lane) -> None:
        if not lane.lost:
            lane.lost = True
            log.error("gateway_lost", tick=self.plan.tick, gateway=lane.name, url=lane.client.url)
            self._changes.announce()

    async def _watch_over(self) -> None:
        """Bring lost gateways back when they answer again; give up what nobody can take any more."""
        since: float | None = None
        while not self._board.over:
            lost = [lane for lane in self.lanes if lane.lost]
            for lane in lost:
                alive = False
                with self.crashes.unit("probe", gateway=lane.name):
                    alive = await lane.client.alive()
                if alive:
                    lane.lost = False
                    log.info("gateway_back", tick=self.plan.tick, gateway=lane.name)
                    self._changes.announce()
            usable = any(lane.usable for lane in self.lanes)
            since = None if usable else since if since is not None else self._now()
            if since is not None and not any(lane.lost for lane in self.lanes):
                self._skip_rest("not_targeted")
            elif since is not None and self._now() - since >= self.pace.lost_patience_s:
                self._skip_rest("gateway_lost")
            await self._changes.wait(self.pace.probe_s if lost else None)

    def _skip_rest(self, reason: str) -> None:
        """Give up every job that has not begun; what was set aside or put off keeps its answer, unscored."""
        for job in self._board.drain():
            if job.id in self._aside or job.id in self._put_off:
                continue
            self.watcher.skipped(
                Skip(job.orchestrator.address, job.orchestrator.service_uri, job.pipeline, job.model, reason)
            )
        self._changes.announce()


def _unjudged(job: Job, lane: Lane, started_at: float, round_trip_s: float, reason: str, message: str = "") -> Result:
    """Return the result of a job that was not judged because of the tester itself."""
    return Result(
        job=job,
        verdict=outcome.verdict(reason, message),
        attribution=Attribution(Kind.MISSING),
        gateway=lane.name,
        targeting=lane.targeting.kind,
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
