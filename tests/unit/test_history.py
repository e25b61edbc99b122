"""Rates, percentiles, bars, failures, recoveries and price changes, from the results of one orchestrator."""

from __future__ import annotations

from jobtester.domain.history import (
    Observation,
    find_events,
    find_price_changes,
    group_by_time,
    summarize,
)
from jobtester.domain.percentiles import percentile


def observe(
    outcome: str, at: float = 0.0, *, seconds: float = 1.0, model: str = "m", price: str | None = None
) -> Observation:
    """Return a result of one capability."""
    return Observation(int(at), at, "https://a:1", "llm", model, "batch", 1, outcome, seconds, price)


def test_unscored_results_change_no_rate() -> None:
    """Three of four scored ones passed, whatever was not scored; without any scored one the rate is unknown."""
    summary = summarize([observe("passed")] * 3 + [observe("failed"), *[observe("unscored")] * 6])
    assert (summary.success_rate, summary.total) == (0.75, 10)
    assert summarize([observe("unscored")]).success_rate is None
    assert summarize([]).p50_s is None


def test_percentiles_are_those_of_passed_round_trips() -> None:
    """The nearest rank of 1 to 100 s; a timeout of a failed job is not a round trip."""
    summary = summarize(
        [observe("failed", seconds=900)] + [observe("passed", seconds=number) for number in range(1, 101)]
    )
    assert (summary.p50_s, summary.p95_s) == (50, 95)
    assert [percentile([7.0], share) for share in (0.0, 0.5, 1.0)] == [7.0, 7.0, 7.0]


def test_hours_without_a_result_have_a_bar_too() -> None:
    """Bars are aligned to whole hours, so that they do not move while a page is reloaded."""
    buckets = group_by_time([observe("passed", 7300), observe("failed", 14_500)], since=3700, until=14_700, step_s=3600)
    assert [(bucket.start, bucket.summary.total) for bucket in buckets] == [
        (3600, 0),
        (7200, 1),
        (10_800, 0),
        (14_400, 1),
    ]


def test_only_changes_are_events() -> None:
    """A failure and its recovery, for each capability by itself; what is unscored between them changes nothing."""
    outcomes = ("passed", "failed", "unscored", "failed", "passed", "passed")
    observed = [observe(outcome, at) for at, outcome in enumerate(outcomes)]
    other = [observe("passed", 1.5, model="n"), observe("unscored", 2.5, model="n")]
    events = find_events(sorted([*observed, *other], key=lambda observation: observation.started_at))
    assert [(event.observation.started_at, event.has_recovered) for event in events] == [(1, False), (4, True)]
    assert [event.has_recovered for event in find_events([observe("failed")])] == [False], "new, and failing at once"


def test_a_price_is_reported_where_it_changes() -> None:
    """Not for every result, and not where it is unknown."""
    prices = ["5", "5", None, "5", "10", "5"]
    changes = find_price_changes([observe("passed", at, price=price) for at, price in enumerate(prices)])
    assert changes == [(0, 5), (4, 10), (5, 5)]
