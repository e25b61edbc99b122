"""Choose which job a gateway takes next, and let gateways wait for each other without polling.

The orchestrator with the most expected work left comes first: its jobs run one after the other, so no tick can be
shorter than they take, and whatever begins late ends late.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from jobtester.domain.jobs import Job, PipelineModel
from jobtester.domain.orchestrators import Target

_JOBS_PER_CHANGE = 2  # a change of the lease costs up to a second: it has to be worth that


@dataclass(slots=True)
class _OrchestratorJobs:
    """The jobs of one orchestrator that have not begun, in their order, and where it is being tested now."""

    order: int
    jobs: deque[Job] = field(default_factory=deque)
    in_flight: int = 0
    gateway: str = ""
    remaining_s: float = 0.0
    is_queued: bool = False


class JobQueue:
    """Holds a tick's jobs until they are settled: recorded, skipped, or held for another run.

    A job is taken, then answered (its orchestrator is free again), then settled, deferred or requeued. No two gateways
    test the same orchestrator at the same time: it would compete with itself, and evidence would name it for both.
    """

    def __init__(self, jobs: Iterable[Job], *, per_orchestrator: int) -> None:
        """Queue the jobs; orchestrators with equal work keep the order of the jobs."""
        self._per_orchestrator = per_orchestrator
        self._by_target: dict[Target, _OrchestratorJobs] = {}
        self._heap: list[tuple[float, int, Target]] = []
        self._held_targets: dict[str, Target] = {}
        self._deferred: list[tuple[float, int, Job]] = []
        self._unsettled = 0
        self._defer_count = 0
        for job in jobs:
            self._unsettled += 1
            self._enqueue(job, front=False)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do and nothing can come back."""
        return self._unsettled == 0

    @property
    def next_due_at(self) -> float | None:
        """When the next deferred job may be tried, in the caller's seconds; None if none waits."""
        return self._deferred[0][0] if self._deferred else None

    def take(self, gateway: str, *, now: float, is_serial: bool, accepts: Callable[[Job], bool]) -> Job | None:
        """Return the next job for a gateway; None if there is none that may begin now.

        A serial gateway keeps to one orchestrator until all its jobs are answered, but near the end of a tick.
        `accepts` is asked once for each pipeline and model, of live runners and of others, since its answer is the same
        for all their jobs.
        """
        answers: dict[tuple[PipelineModel, bool], bool] = {}

        def is_accepted(job: Job) -> bool:
            key = job.pipeline_model, job.capability.runner is not None
            answer = answers.get(key)
            if answer is None:
                answer = answers[key] = accepts(job)
            return answer

        while self._deferred and self._deferred[0][0] <= now:
            self._enqueue(heapq.heappop(self._deferred)[2], front=False)
        if is_serial and gateway in self._held_targets:
            held = self._by_target[self._held_targets[gateway]]
            job = _first_accepted(held, is_accepted) if held.in_flight < self._per_orchestrator else None
            if job is not None and (held.in_flight or not self._is_longer_waiting(held.remaining_s, job)):
                return self._begin(held, job, gateway)
            if held.in_flight:
                return None
            self.release(gateway)
        return self._take_from_heap(gateway, is_serial, is_accepted)

    def bring_forward(self, until: float) -> None:
        """Try deferred jobs again at `until` at the latest, if they are all that is left."""
        if len(self._deferred) == self._unsettled:
            self._deferred = [(min(due, until), number, job) for due, number, job in self._deferred]
            heapq.heapify(self._deferred)

    def on_answered(self, job: Job) -> None:
        """Free the orchestrator of a job that has its answer."""
        queued = self._by_target[job.target]
        queued.in_flight -= 1
        if queued.in_flight == 0 and job.target not in self._held_targets.values():
            queued.gateway = ""
        self._offer(job.target, queued)

    def release(self, gateway: str) -> None:
        """Free the orchestrator that a serial gateway holds, so that any gateway may have its remaining jobs."""
        target = self._held_targets.pop(gateway, None)
        if target is not None:
            queued = self._by_target[target]
            queued.gateway = ""
            self._offer(target, queued)

    def on_settled(self, _job: Job) -> None:
        """Count a job that is done with, one way or another."""
        self._unsettled -= 1

    def requeue(self, job: Job) -> None:
        """Take back a job that was never sent; it comes first again."""
        self._enqueue(job, front=True)

    def defer(self, job: Job, until: float) -> None:
        """Try a job again from `until` on."""
        self._defer_count += 1
        heapq.heappush(self._deferred, (until, self._defer_count, job))

    def drain(self, matches: Callable[[Job], bool] = lambda _job: True) -> list[Job]:
        """Remove and return all jobs that match and have not begun, deferred ones included."""
        drained = []
        for target, queued in self._by_target.items():
            jobs = list(queued.jobs)
            queued.jobs = deque(job for job in jobs if not matches(job))
            if len(queued.jobs) < len(jobs):
                drained += [job for job in jobs if matches(job)]
                queued.remaining_s = sum(job.expected_s for job in queued.jobs)
                queued.is_queued = False  # the entry has another remaining time, so it is out of date
                self._offer(target, queued)
        drained += [job for *_, job in self._deferred if matches(job)]
        self._deferred = [entry for entry in self._deferred if not matches(entry[2])]
        heapq.heapify(self._deferred)
        self._unsettled -= len(drained)
        return drained

    def _is_longer_waiting(self, remaining_s: float, job: Job) -> bool:
        """Return True if a serial gateway had better leave an orchestrator with this job next, and this much left.

        While as many orchestrators wait as there are gateways, a gateway that is done takes another one. Near the end
        of a tick one gateway would be left with a whole orchestrator, and the others with nothing: so they take turns.
        """
        gateways = len(self._held_targets)
        waiting = (queued.remaining_s for queued in self._by_target.values() if queued.jobs and not queued.gateway)
        waiting_s = list(islice(waiting, gateways))
        threshold_s = remaining_s + _JOBS_PER_CHANGE * job.expected_s
        return 0 < len(waiting_s) < gateways and max(waiting_s) > threshold_s

    def _take_from_heap(self, gateway: str, is_serial: bool, is_accepted: Callable[[Job], bool]) -> Job | None:
        passed_over = []
        taken = None
        while self._heap and taken is None:
            entry = heapq.heappop(self._heap)
            queued = self._by_target[entry[2]]
            # An entry is not removed when its orchestrator's work changes: it is out of date, and another is pushed.
            if -entry[0] != queued.remaining_s or not queued.jobs or queued.in_flight >= self._per_orchestrator:
                queued.is_queued = False
                self._offer(entry[2], queued)
                continue
            job = _first_accepted(queued, is_accepted) if queued.gateway in ("", gateway) else None
            if job is None:
                passed_over.append(entry)
                continue
            queued.is_queued = False
            if is_serial:
                self._held_targets[gateway] = entry[2]
            taken = self._begin(queued, job, gateway)
            self._offer(entry[2], queued)
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        return taken

    def _enqueue(self, job: Job, *, front: bool) -> None:
        queued = self._by_target.setdefault(job.target, _OrchestratorJobs(len(self._by_target)))
        queued.jobs.appendleft(job) if front else queued.jobs.append(job)
        queued.remaining_s += job.expected_s
        queued.is_queued = False
        self._offer(job.target, queued)

    def _offer(self, target: Target, queued: _OrchestratorJobs) -> None:
        """Push an orchestrator that can begin another job."""
        if queued.jobs and queued.in_flight < self._per_orchestrator and not queued.is_queued:
            queued.is_queued = True
            heapq.heappush(self._heap, (-queued.remaining_s, queued.order, target))

    def _begin(self, queued: _OrchestratorJobs, job: Job, gateway: str) -> Job:
        queued.jobs.remove(job)
        queued.in_flight += 1
        queued.gateway = gateway
        # Set to zero at the end: a sum of floats that were subtracted one by one may come out a little off.
        queued.remaining_s = queued.remaining_s - job.expected_s if queued.jobs else 0.0
        return job


def _first_accepted(queued: _OrchestratorJobs, is_accepted: Callable[[Job], bool]) -> Job | None:
    return next((job for job in queued.jobs if is_accepted(job)), None)


class Broadcast:
    """Wakes everybody who waits whenever something has changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake all who wait now."""
        self._event.set()
        self._event.clear()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the next change, or `timeout_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
