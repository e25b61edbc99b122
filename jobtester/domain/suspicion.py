"""Suspicion: whether a tick's failures speak of the orchestrators, or of the path to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from jobtester.domain.outcome import Outcome
from jobtester.domain.results import Result

_FEWEST_JOBS = 10
_PASSING_SHARE = 0.2


@dataclass(slots=True)
class Suspicion:
    """Watches one gateway through one tick. Pure."""

    jobs: int = 0
    passed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Count a result that came through the gateway."""
        self.jobs += 1
        if result.verdict.outcome is Outcome.PASSED:
            self.passed += 1
        elif result.verdict.outcome is Outcome.FAILED:
            self.reasons[result.verdict.code] += 1

    @property
    def path_works(self) -> bool:
        """Tell whether something has passed: then a failure is the orchestrator's own."""
        return self.passed > 0

    @property
    def holds(self) -> bool:
        """Tell whether the tick's failures are to be held back: nearly all of ten or more failed, all alike."""
        few = self.passed < _PASSING_SHARE * self.jobs
        return self.jobs >= _FEWEST_JOBS and few and len(self.reasons) == 1
