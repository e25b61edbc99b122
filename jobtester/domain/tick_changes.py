"""What a tick changes: capabilities that newly fail, and those that pass again.

Only scored results count. A result that says nothing about the orchestrator changes nothing, and neither does a failure
in a suspect tick, which is probably the gateway's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from jobtester.domain.orchestrators import CapabilityKey
from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result

_MAX_CAPABILITIES = 50_000  # names come from the network, so anybody could make the tester remember ever more


@dataclass(frozen=True, slots=True)
class CapabilityChange:
    """A capability that newly fails or passes again, by the result that shows it; `reason` is empty for a pass."""

    key: CapabilityKey
    result: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TickChanges:
    """What changed with a tick. `still_failing` counts capabilities that failed in the tick and before it."""

    failing: tuple[CapabilityChange, ...] = ()
    recovered: tuple[CapabilityChange, ...] = ()
    still_failing: int = 0
    state_before: str = ""

    def is_change(self, state: str) -> bool:
        """Return True if there is news: in a capability, or in how the tick ended."""
        return bool(self.failing or self.recovered or (self.state_before or "finished") != state)


@dataclass(slots=True)
class ChangeTracker:
    """Knows of each capability whether its last scored result passed, and compares each tick with that."""

    _passed: dict[CapabilityKey, bool] = field(default_factory=dict)
    _results: dict[CapabilityKey, CapabilityChange] = field(default_factory=dict)
    _state: str = ""

    def restore(self, outcomes: Iterable[tuple[CapabilityKey, str]]) -> None:
        """Begin with outcomes that an earlier process recorded; only scored ones count."""
        for key, outcome in outcomes:
            if outcome in (Outcome.PASSED, Outcome.FAILED):
                self._passed[key] = outcome == Outcome.PASSED

    def add(self, result: Result) -> None:
        """Remember a result of the running tick."""
        verdict, key = result.verdict, result.job.key
        if verdict.outcome is not Outcome.UNSCORED:
            reason = "" if verdict.outcome is Outcome.PASSED else verdict.code
            self._results[key] = CapabilityChange(key, result.id, reason)

    def finish(self, state: str) -> TickChanges:
        """End the tick, which ended in `state`, and return what it changed."""
        failing, recovered, still_failing = [], [], 0
        for key, change in self._results.items():
            has_passed, had_passed = not change.reason, self._passed.get(key)
            if not has_passed and state == "suspect":
                continue
            if has_passed and had_passed is False:
                recovered.append(change)
            elif not has_passed and had_passed is not False:
                failing.append(change)
            elif not has_passed:
                still_failing += 1
            self._passed.pop(key, None)  # so that those that were not tested for the longest time are the first
            self._passed[key] = has_passed
        while len(self._passed) > _MAX_CAPABILITIES:
            del self._passed[next(iter(self._passed))]
        changes = TickChanges(_sort(failing), _sort(recovered), still_failing, self._state)
        self._results.clear()
        if state != "aborted":  # the tester was stopped, which says nothing
            self._state = state
        return changes


def _sort(changes: Iterable[CapabilityChange]) -> tuple[CapabilityChange, ...]:
    # By orchestrator, so that people find together what belongs together.
    return tuple(sorted(changes, key=lambda change: change.key))
