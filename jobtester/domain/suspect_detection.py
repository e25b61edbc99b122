"""Suspect detection: decide whether a tick's failures show a broken path and not broken orchestrators."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result

MIN_JOBS = 10
JOBS_PER_PASS = 5  # at least one in so many jobs passes where the path works


@dataclass(slots=True)
class SuspectDetector:
    """Counts the results of one gateway in one tick.

    A broken path (a gateway without funds, a firewall, a bad test input) fails every job in the same way. Orchestrators
    have nothing in common, so when many of them fail alike and hardly any passes, the path is the likelier cause.
    """

    jobs: int = 0
    passed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add_result(self, result: Result) -> None:
        """Count a result of the gateway."""
        self.add(result.verdict.outcome, result.verdict.code)

    def add(self, outcome: Outcome, reason: str, jobs: int = 1) -> None:
        """Count jobs with an outcome and a reason; unscored ones count as jobs that did not pass."""
        self.jobs += jobs
        if outcome is Outcome.PASSED:
            self.passed += jobs
        elif outcome is Outcome.FAILED:
            self.reasons[reason] += jobs

    @property
    def is_suspect(self) -> bool:
        """Return True if fewer than one in five of ten or more jobs passed, and all failures have one reason."""
        few_passed = self.passed * JOBS_PER_PASS < self.jobs
        return self.jobs >= MIN_JOBS and few_passed and len(self.reasons) == 1

    @property
    def should_hold(self) -> bool:
        """Return True if a failure has to wait before it is posted: nothing has passed yet, or the tick is suspect."""
        return self.passed == 0 or self.is_suspect
