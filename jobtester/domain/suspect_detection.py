"""Suspicion: whether a tick's failures speak of the orchestrators, or of the path to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result

MIN_JOBS = 10
JOBS_PER_PASS = 5  # of so many jobs one at least passes where the path is well


@dataclass(slots=True)
class SuspectDetector:
    """Watches one gateway through one tick. Pure."""

    jobs: int = 0
    passed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add_result(self, result: Result) -> None:
        """Count a result that came through the gateway."""
        self.jobs += 1
        if result.verdict.outcome is Outcome.PASSED:
            self.passed += 1
        elif result.verdict.outcome is Outcome.FAILED:
            self.reasons[result.verdict.code] += 1

    @property
    def is_suspect(self) -> bool:
        """Tell whether failures are to be held back as things stand: nearly all of ten or more failed, all alike."""
        few = self.passed * JOBS_PER_PASS < self.jobs
        return self.jobs >= MIN_JOBS and few and len(self.reasons) == 1

    @property
    def should_hold(self) -> bool:
        """Tell whether a failure is to wait now: nothing has passed yet, or so little that the path may be broken."""
        return self.passed == 0 or self.is_suspect
