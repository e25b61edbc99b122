"""The lease: who a webhook gateway may select, and when that may change. Pure rules of time; no I/O, no waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jobtester.domain.orchestrators import Orchestrator

_MOST_REMEMBERED = 2_000  # instants of questions of one job; a gateway that asks on and on is read from these
QUESTIONS_BEFORE_JOB = 5  # a tester gateway asks about this often before a job leaves (docs/targeting.md)


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """The times of one gateway, in seconds, and how often one job makes it ask at least."""

    retry_window: float = 2.0
    settle: float = 0.5
    after_disconnect: float = 7.0
    min_asks: int = 5


@dataclass(slots=True)
class LeasedJob:
    """One job in the air: since when, and how often and when the gateway has asked in its lifetime.

    `alone` means that no question of another job can be among them.
    """

    job: str
    orchestrator: Orchestrator
    sent_at: float
    questions: int = 0
    was_overlapped: bool = False
    was_alone: bool = True
    question_times: list[float] = field(default_factory=list)


class Lease:
    """Says whom `/orchestrators` names. Every method takes the time, in seconds on one monotonic clock.

    Outside a tick all candidates are named. In a tick the holder alone is named, and nobody between two holders.
    """

    def __init__(self, timing: LeaseTiming, *, overlap: bool = False) -> None:
        """Start with nobody known and no tick running."""
        self.timing = timing
        self.overlap = overlap
        self.holder: Orchestrator | None = None
        self.jobs: dict[str, LeasedJob] = {}
        self.last_question_at = float("-inf")
        self._in_tick = False
        self._candidates: tuple[Orchestrator, ...] = ()
        self._stray_since: float | None = None
        self._unclaimed = 0

    def set_candidates(self, candidates: Sequence[Orchestrator]) -> None:
        """Take over who may be named while no tick runs."""
        self._candidates = tuple(one for one in candidates if one.service_uri)

    def begin_tick(self) -> None:
        """Begin to name leaseholders only."""
        self._in_tick, self.holder = True, None

    def end_tick(self) -> None:
        """Go back to naming all candidates."""
        self._in_tick, self.holder = False, None

    def answer_webhook(self, now: float) -> tuple[Orchestrator, ...]:
        """Answer one call of the webhook: whom the gateway may select now."""
        self.last_question_at = now
        if self.jobs:
            self._unclaimed += 1
        for flight in self.jobs.values():
            flight.questions += 1
            if len(flight.question_times) < _MOST_REMEMBERED:
                flight.question_times.append(now)
        if not self._in_tick:
            return self._candidates
        return (self.holder,) if self.holder is not None else ()

    def ready_at(self, orchestrator: Orchestrator, now: float) -> float | None:
        """Say from when on the lease may name this orchestrator; None if that depends on jobs or calls to come."""
        if self.holder is not None and self.holder.target == orchestrator.target:
            return now
        earliest = now
        if self._stray_since is not None:
            earliest = max(self._stray_since, self.last_question_at) + self.timing.after_disconnect
        for flight in self.jobs.values():
            if not self.overlap:
                return None
            if self.holder is None or flight.orchestrator.target != self.holder.target:
                continue
            if flight.questions < QUESTIONS_BEFORE_JOB:
                return None
            earliest = max(
                earliest, flight.sent_at + self.timing.retry_window, self.last_question_at + self.timing.settle
            )
        return earliest

    def grant(self, orchestrator: Orchestrator, now: float) -> None:
        """Give the lease to an orchestrator. Raises RuntimeError where the rules do not allow it yet."""
        ready = self.ready_at(orchestrator, now)
        if ready is None or ready > now:
            raise RuntimeError("the lease may not move yet")
        if self.holder is not None and self.holder.target == orchestrator.target:
            return
        self._stray_since = None
        self.holder = orchestrator
        if self.jobs:
            for flight in self.jobs.values():
                flight.was_overlapped = True
        else:
            self._unclaimed = 0

    def release(self, now: float) -> None:
        """Name nobody any more, unless a job is in the air or calls may still follow a dropped one."""
        stray = self._stray_since is not None and (
            max(self._stray_since, self.last_question_at) + self.timing.after_disconnect > now
        )
        if not self.jobs and not stray:
            self.holder = None

    def on_sent(self, job: str, now: float) -> LeasedJob:
        """Note that a job of the holder leaves now."""
        assert self.holder is not None, "a job needs the lease"
        others = any(one.orchestrator.target != self.holder.target for one in self.jobs.values())
        strays = self._stray_since is not None and (
            max(self._stray_since, self.last_question_at) + self.timing.after_disconnect > now
        )
        for flight in self.jobs.values():
            flight.was_alone = False
        alone = not self.jobs and not strays
        flight = self.jobs[job] = LeasedJob(job, self.holder, now, was_overlapped=others, was_alone=alone)
        return flight

    def on_ended(self, job: str, now: float, *, disconnected: bool) -> LeasedJob:
        """Note that a job was answered, or that we left before its answer (then calls may still follow)."""
        flight = self.jobs.pop(job)
        if disconnected:
            self._stray_since = now
        return flight

    def claim_questions(self, flight: LeasedJob) -> bool:
        """Tell whether the gateway asked for this job; each call counts for one job only."""
        needed = self.timing.min_asks
        if flight.questions < needed or self._unclaimed < needed:
            return False
        self._unclaimed -= needed
        return True
