"""Summarize the results of one orchestrator over time: rates, percentiles, bars per hour or day, changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from jobtester.domain.percentiles import percentile


class Observation(NamedTuple):
    """What counts of one result for a history; times in seconds, the price as decimal text or None."""

    seq: int
    started_at: float
    service_uri: str
    pipeline: str
    model: str
    kind: str
    warm: int
    outcome: str
    round_trip_s: float
    price_wei: str | None

    @property
    def capability(self) -> tuple[str, str, str, str]:
        """Return the capability that was tested, of one orchestrator."""
        return (self.service_uri, self.pipeline, self.model, self.kind)


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts by outcome, and the percentiles of passed round trips in seconds; None without any passed."""

    passed: int
    failed: int
    unscored: int
    p50_s: float | None
    p95_s: float | None

    @property
    def success_rate(self) -> float | None:
        """Return the share of passed among scored results; None where nothing was scored: unknown is not well."""
        scored = self.passed + self.failed
        return self.passed / scored if scored else None

    @property
    def total(self) -> int:
        """Return the number of results."""
        return self.passed + self.failed + self.unscored


@dataclass(frozen=True, slots=True)
class Bucket:
    """The summary of the results that started in one hour or day."""

    start: float
    summary: Summary


@dataclass(frozen=True, slots=True)
class Event:
    """A capability that fails after it passed (or for the first time), or passes again after it failed."""

    observation: Observation
    has_recovered: bool


def summarize(observations: Iterable[Observation]) -> Summary:
    """Count results by outcome, and find the percentiles of those that passed."""
    counts = {"passed": 0, "failed": 0, "unscored": 0}
    durations = []
    for observation in observations:
        outcome = observation.outcome
        counts[outcome] = counts.get(outcome, 0) + 1
        if outcome == "passed":
            durations.append(observation.round_trip_s)
    p50_s, p95_s = (percentile(durations, share) if durations else None for share in (0.5, 0.95))
    return Summary(counts["passed"], counts["failed"], counts["unscored"], p50_s, p95_s)


def group_by_time(observations: Iterable[Observation], *, since: float, until: float, step_s: float) -> list[Bucket]:
    """Return one bucket for each step of time, also the empty ones, aligned to whole hours or days of UTC."""
    first = since - since % step_s
    buckets: list[list[Observation]] = [[] for _ in range(int((until - first) // step_s) + 1)]
    for observation in observations:
        index = int((observation.started_at - first) // step_s)
        if 0 <= index < len(buckets):
            buckets[index].append(observation)
    return [Bucket(first + index * step_s, summarize(bucket)) for index, bucket in enumerate(buckets)]


def find_events(observations: Iterable[Observation]) -> list[Event]:
    """Return the failures and recoveries of observations in their order. Unscored ones change nothing."""
    last: dict[tuple[str, str, str, str], str] = {}
    events = []
    for observation in observations:
        if observation.outcome not in ("passed", "failed"):
            continue
        before = last.get(observation.capability)
        last[observation.capability] = observation.outcome
        if observation.outcome != before and (before is not None or observation.outcome == "failed"):
            events.append(Event(observation, observation.outcome == "passed"))
    return events


def find_price_changes(observations: Iterable[Observation]) -> list[tuple[float, int]]:
    """Return (instant, wei) where the price of a job changed, from observations in their order."""
    changes: list[tuple[float, int]] = []
    for observation in observations:
        if observation.price_wei is not None and (not changes or int(observation.price_wei) != changes[-1][1]):
            changes.append((observation.started_at, int(observation.price_wei)))
    return changes
