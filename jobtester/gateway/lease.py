"""Decide which orchestrator a webhook gateway may select, and when that may change. Pure rules of time, no I/O.

A gateway asks the webhook several times before each attempt of a job, and uses the orchestrator that is named just
then. Nothing in its question says for which job it asks. So the tester keeps one orchestrator named until no question
can follow for a job that was meant for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jobtester.domain.orchestrators import Orchestrator

_MAX_QUESTION_TIMES = 2_000  # per job; later ones of a gateway that asks on and on are not kept
QUESTIONS_BEFORE_JOB = 5  # a tester gateway asks about this often before a job leaves (docs/targeting.md)


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """The times of one gateway, in seconds, and the least number of questions that one job causes.

    A failed attempt is tried again for `retry_window`. Selections of a job that has left end within `settle`. After the
    tester has left a job, the gateway has ended it once it was quiet for `after_disconnect`.
    """

    retry_window: float = 2.0
    settle: float = 0.5
    after_disconnect: float = 7.0
    min_asks: int = 5


@dataclass(slots=True)
class LeasedJob:
    """One job in flight: since when, and how often and when the gateway has asked in its lifetime.

    `was_overlapped` means that somebody else was named meanwhile, `was_alone` that none of its questions can belong to
    another job.
    """

    job: str
    orchestrator: Orchestrator
    sent_at: float
    questions: int = 0
    was_overlapped: bool = False
    was_alone: bool = True
    question_times: list[float] = field(default_factory=list)


class Lease:
    """Holds the one orchestrator that `/orchestrators` names. Every method takes a monotonic time in seconds.

    Outside a tick all candidates are named. In a tick the holder alone is named, and nobody between two holders.
    """

    def __init__(self, timing: LeaseTiming, *, overlap: bool = False) -> None:
        self.timing = timing
        self.overlap = overlap
        self.holder: Orchestrator | None = None
        self.jobs: dict[str, LeasedJob] = {}
        self.last_question_at = float("-inf")
        self._in_tick = False
        self._candidates: tuple[Orchestrator, ...] = ()
        self._disconnected_at: float | None = None
        self._unclaimed = 0

    def set_candidates(self, candidates: Sequence[Orchestrator]) -> None:
        """Replace those who are named while no tick runs."""
        self._candidates = tuple(candidate for candidate in candidates if candidate.service_uri)

    def begin_tick(self) -> None:
        """Name lease holders only, from now on."""
        self._in_tick, self.holder = True, None

    def end_tick(self) -> None:
        """Name all candidates again."""
        self._in_tick, self.holder = False, None

    def answer_webhook(self, now: float) -> tuple[Orchestrator, ...]:
        """Answer one call of the webhook: return those whom the gateway may select now."""
        self._forget_ended_strays(now)  # before this question, which is not theirs, seems to prolong them
        self.last_question_at = now
        if self.jobs:
            self._unclaimed += 1
        for leased in self.jobs.values():
            leased.questions += 1
            if len(leased.question_times) < _MAX_QUESTION_TIMES:
                leased.question_times.append(now)
        if not self._in_tick:
            return self._candidates
        return (self.holder,) if self.holder is not None else ()

    def ready_at(self, orchestrator: Orchestrator, now: float) -> float | None:
        """Return when the lease may name this orchestrator; None if that depends on jobs or questions to come."""
        if self.holder is not None and self.holder.target == orchestrator.target:
            return now
        earliest = now
        self._forget_ended_strays(now)
        if self._disconnected_at is not None:
            # The gateway goes on with a job after the tester has left, and may still ask for it: a new name would
            # send the rest of its attempts to somebody else.
            earliest = self._quiet_at(self._disconnected_at)
        for leased in self.jobs.values():
            if not self.overlap:
                return None
            if self.holder is None or leased.orchestrator.target != self.holder.target:
                continue
            # With overlap the name may change while the holder's job computes, but not before the gateway has
            # selected it: it has asked as often as it does before a job leaves, can no longer try again, and has
            # been quiet for a moment.
            if leased.questions < QUESTIONS_BEFORE_JOB:
                return None
            earliest = max(
                earliest, leased.sent_at + self.timing.retry_window, self.last_question_at + self.timing.settle
            )
        return max(earliest, now)

    def grant(self, orchestrator: Orchestrator, now: float) -> None:
        """Move the lease to an orchestrator. Raises RuntimeError where the rules do not allow it yet."""
        ready = self.ready_at(orchestrator, now)
        if ready is None or ready > now:
            raise RuntimeError("the lease may not move yet")
        if self.holder is not None and self.holder.target == orchestrator.target:
            return
        self._disconnected_at = None
        self.holder = orchestrator
        if self.jobs:
            for leased in self.jobs.values():
                leased.was_overlapped = True

    def release(self, now: float) -> None:
        """Name nobody any more, unless a job is in flight or questions may still follow one that was left."""
        if not self.jobs and not self._expects_strays(now):
            self.holder = None

    def on_sent(self, job: str, now: float) -> LeasedJob:
        """Begin a job of the holder, which is sent now."""
        assert self.holder is not None, "a job needs the lease"
        if not self.jobs:
            self._unclaimed = 0  # those that are left belong to jobs that have ended
        is_overlapped = any(leased.orchestrator.target != self.holder.target for leased in self.jobs.values())
        is_alone = not self.jobs and not self._expects_strays(now)
        for other in self.jobs.values():
            other.was_alone = False
        leased = self.jobs[job] = LeasedJob(job, self.holder, now, was_overlapped=is_overlapped, was_alone=is_alone)
        return leased

    def on_ended(self, job: str, now: float, *, disconnected: bool) -> LeasedJob:
        """End a job: answered, or `disconnected` because the tester left first and questions may still follow."""
        leased = self.jobs.pop(job)
        if disconnected:
            self._disconnected_at = now
        return leased

    def claim_questions(self, leased: LeasedJob) -> bool:
        """Return True if the gateway asked often enough for this job; each question counts for one job only."""
        needed = self.timing.min_asks
        if leased.questions < needed or self._unclaimed < needed:
            return False
        self._unclaimed -= needed
        return True

    def _quiet_at(self, disconnected_at: float) -> float:
        """Return when a gateway that was left with a job has surely ended it."""
        return max(disconnected_at, self.last_question_at) + self.timing.after_disconnect

    def _expects_strays(self, now: float) -> bool:
        """Return True if questions for a job that the tester left may still come."""
        self._forget_ended_strays(now)
        return self._disconnected_at is not None

    def _forget_ended_strays(self, now: float) -> None:
        if self._disconnected_at is not None and self._quiet_at(self._disconnected_at) <= now:
            self._disconnected_at = None
