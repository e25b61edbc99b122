"""The tick report: count the jobs of one tick by outcome, reason, pipeline and attribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobtester.domain.plan import Plan, Skip
from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result
from jobtester.domain.units import format_wei


@dataclass(slots=True)
class TickReport:
    """Counts a tick while it runs. Times in seconds, `started_at` Unix seconds, prices in wei.

    It has a field for each number that the pages and the notification show.
    """

    tick: str
    trigger: str
    started_at: float
    seed: int = 0
    orchestrators: int = 0
    planned: int = 0
    price_wei: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    attribution: Counter[str] = field(default_factory=Counter)
    pipelines: dict[str, Counter[str]] = field(default_factory=dict)
    warmth: dict[str, Counter[str]] = field(default_factory=lambda: {"warm": Counter(), "cold": Counter()})
    skipped: Counter[str] = field(default_factory=Counter)
    pauses: Counter[str] = field(default_factory=Counter)
    deferred: Counter[str] = field(default_factory=Counter)
    work_us_by_target: Counter[str] = field(default_factory=Counter)
    work_s: float = 0.0
    planned_at: float | None = None
    finished_at: float | None = None
    state: str = "running"
    problem: str = ""

    def set_plan(self, plan: Plan) -> None:
        """Record how many jobs are planned, and what is skipped."""
        self.seed, self.planned, self.price_wei = plan.seed, len(plan.jobs), plan.price_wei
        self.add_skips(plan.skipped)

    def add_skips(self, skips: Iterable[Skip]) -> None:
        """Count jobs that are not tested, by reason, and those of a pause by the operator's words."""
        for skip in skips:
            self.skipped[skip.reason] += 1
            if skip.note:
                self.pauses[skip.note] += 1

    def add_result(self, result: Result) -> None:
        """Count one result."""
        verdict = result.verdict
        self.outcomes[verdict.outcome] += 1
        if verdict.outcome is not Outcome.PASSED:
            self.reasons[verdict.code] += 1
        self.attribution[result.attribution.kind] += 1
        self.pipelines.setdefault(result.job.pipeline, Counter())[verdict.outcome] += 1
        self.warmth["warm" if result.job.warm else "cold"][verdict.outcome] += 1
        self.work_us_by_target[result.job.target.service_uri] += int(result.round_trip_s * 1_000_000)
        self.work_s += result.round_trip_s

    @property
    def settled(self) -> int:
        """Return how many jobs have a result."""
        return sum(self.outcomes.values())

    @property
    def longest_orchestrator_s(self) -> float:
        """Return the longest sum of round trips on one orchestrator in seconds, below which no tick can be."""
        return max(self.work_us_by_target.values(), default=0) / 1_000_000

    @property
    def phases(self) -> dict[str, float]:
        """Return how long the tick's phases have taken that are over, in seconds."""
        if self.planned_at is None:
            return {}
        phases = {"discovery": round(self.planned_at - self.started_at, 3)}
        return phases if self.finished_at is None else phases | {"jobs": round(self.finished_at - self.planned_at, 3)}

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values, the price as decimal text."""
        return {
            "tick": self.tick,
            "trigger": self.trigger,
            "state": self.state,
            "problem": self.problem,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "phases": self.phases,
            "seed": self.seed,
            "orchestrators": self.orchestrators,
            "planned": self.planned,
            "settled": self.settled,
            "outcomes": {outcome.value: self.outcomes[outcome] for outcome in Outcome},
            "reasons": _plain(self.reasons),
            "attribution": _plain(self.attribution),
            "pipelines": {slug: _plain(counts) for slug, counts in sorted(self.pipelines.items())},
            "warmth": {state: _plain(counts) for state, counts in self.warmth.items()},
            "skipped": _plain(self.skipped),
            "pauses": _plain(self.pauses),
            "deferred": _plain(self.deferred),
            "estimated_price_wei": format_wei(self.price_wei),
            "work_s": round(self.work_s, 3),
            "longest_chain_s": round(self.longest_orchestrator_s, 3),
        }


def _plain(counts: Mapping[str, int]) -> dict[str, int]:
    return {str(key): count for key, count in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))}
