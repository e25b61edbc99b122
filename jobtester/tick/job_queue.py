"""The board: which job a gateway takes next. Pure; longest chains first, one gateway per orchestrator at a time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from jobtester.domain.jobs import Job, PipelineModel
from jobtester.domain.orchestrators import Target


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
    """Holds a tick's jobs until they are settled: recorded, skipped, or set aside.

    A job is taken, then answered (its orchestrator is free again), then settled or put back.
    """

    def __init__(self, jobs: Iterable[Job], *, per_orchestrator: int) -> None:
        """Take over the jobs; chains with the longest expected work come first, equals in the given order."""
        self._cap = per_orchestrator
        self._by_target: dict[Target, _OrchestratorJobs] = {}
        self._heap: list[tuple[float, int, Target]] = []
        self._held: dict[str, Target] = {}
        self._waiting: list[tuple[float, int, Job]] = []
        self._unsettled = 0
        self._count = 0
        for job in jobs:
            self._add(job)

    @property
    def is_finished(self) -> bool:
        """Tell whether nothing is left to do and nothing can come back."""
        return self._unsettled == 0

    @property
    def next_due_at(self) -> float | None:
        """Say when the next deferred job may be tried, None if none waits."""
        return self._waiting[0][0] if self._waiting else None

    def take(self, gateway: str, *, now: float, is_serial: bool, accepts: Callable[[Job], bool]) -> Job | None:
        """Give the next job for a gateway; None if there is none that may begin now.

        A serial gateway keeps to one orchestrator until all its jobs are answered. `suits` is asked once for each pair.
        """
        known: dict[PipelineModel, bool] = {}

        def fits(job: Job) -> bool:
            answer = known.get(job.pipeline_model)
            if answer is None:
                answer = known[job.pipeline_model] = accepts(job)
            return answer

        while self._waiting and self._waiting[0][0] <= now:
            self._enqueue(heapq.heappop(self._waiting)[2], front=False)
        if is_serial and gateway in self._held:
            chain = self._by_target[self._held[gateway]]
            job = self._pick(chain, fits) if chain.in_flight < self._cap else None
            if job is not None:
                return self._taken(chain, job, gateway)
            if chain.in_flight:
                return None
            self._free(gateway)
        passed_over = []
        found = None
        while self._heap and found is None:
            entry = heapq.heappop(self._heap)
            chain = self._by_target[entry[2]]
            if -entry[0] != chain.remaining_s or not chain.jobs or chain.in_flight >= self._cap:
                chain.is_queued = False
                self._offer(entry[2], chain)
                continue
            mine = chain.gateway in ("", gateway)
            job = self._pick(chain, fits) if mine else None
            if job is None:
                passed_over.append(entry)
                continue
            chain.is_queued = False
            if is_serial:
                self._held[gateway] = entry[2]
            found = self._taken(chain, job, gateway)
            self._offer(entry[2], chain)
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        return found

    def bring_forward(self, until: float) -> None:
        """Try deferred jobs again at `until` at the latest, if they are all that is left."""
        if len(self._waiting) == self._unsettled:
            self._waiting = [(min(due, until), number, job) for due, number, job in self._waiting]
            heapq.heapify(self._waiting)

    def on_answered(self, job: Job) -> None:
        """Note that a job has its answer: its orchestrator may get another one."""
        chain = self._by_target[job.target]
        chain.in_flight -= 1
        if chain.in_flight == 0 and job.target not in self._held.values():
            chain.gateway = ""
        self._offer(job.target, chain)

    def release(self, gateway: str) -> None:
        """Free the orchestrator that a gateway holds, since the gateway can take nothing more now."""
        if gateway in self._held:
            self._free(gateway)

    def on_settled(self, _job: Job) -> None:
        """Note that a job is done with, one way or another."""
        self._unsettled -= 1

    def requeue(self, job: Job) -> None:
        """Take back a job that was never sent."""
        self._enqueue(job, front=True)

    def defer(self, job: Job, until: float) -> None:
        """Try a job again from `until` on."""
        self._count += 1
        heapq.heappush(self._waiting, (until, self._count, job))

    def drain(self) -> list[Job]:
        """Give up all jobs that have not begun, deferred ones included."""
        left = [job for chain in self._by_target.values() for job in chain.jobs] + [job for *_, job in self._waiting]
        for chain in self._by_target.values():
            chain.jobs.clear()
            chain.remaining_s = 0.0
        self._waiting.clear()
        self._unsettled -= len(left)
        return left

    def _add(self, job: Job) -> None:
        self._unsettled += 1
        self._enqueue(job, front=False)

    def _enqueue(self, job: Job, *, front: bool) -> None:
        chain = self._by_target.setdefault(job.target, _OrchestratorJobs(len(self._by_target)))
        chain.jobs.appendleft(job) if front else chain.jobs.append(job)
        chain.remaining_s += job.expected_s
        chain.is_queued = False
        self._offer(job.target, chain)

    def _offer(self, target: Target, chain: _OrchestratorJobs) -> None:
        """Put a chain on the heap if it can give a job; entries that became untrue are dropped when met."""
        if chain.jobs and chain.in_flight < self._cap and not chain.is_queued:
            chain.is_queued = True
            heapq.heappush(self._heap, (-chain.remaining_s, chain.order, target))

    def _pick(self, chain: _OrchestratorJobs, fits: Callable[[Job], bool]) -> Job | None:
        return next((job for job in chain.jobs if fits(job)), None)

    def _taken(self, chain: _OrchestratorJobs, job: Job, gateway: str) -> Job:
        chain.jobs.remove(job)
        chain.in_flight += 1
        chain.gateway = gateway
        chain.remaining_s = chain.remaining_s - job.expected_s if chain.jobs else 0.0
        return job

    def _free(self, gateway: str) -> None:
        """Let a serial gateway go of its orchestrator, so that any gateway may have its remaining jobs."""
        target = self._held.pop(gateway)
        chain = self._by_target[target]
        chain.gateway = ""
        self._offer(target, chain)
