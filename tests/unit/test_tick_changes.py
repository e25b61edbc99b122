"""A tick's changes are what newly fails and what passes again, and nothing else."""

from __future__ import annotations

from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, CapabilityKey
from jobtester.domain.tick_changes import ChangeTracker, TickChanges
from tests.harness.results import make_job, make_result

CODES = {"passed": "ok", "failed": "timeout", "unscored": "shutdown"}


def job_for(model: str) -> Job:
    """Return a job for a model."""
    return make_job(capability=Capability("llm", model))


def tick(tracker: ChangeTracker, state: str = "finished", **outcomes: str) -> TickChanges:
    """Run a tick in which each model has an outcome."""
    for model, outcome in outcomes.items():
        tracker.add(make_result(CODES[outcome], job_for(model)))
    return tracker.finish(state)


def models(changes: TickChanges) -> tuple[list[str], list[str], int]:
    """Return the models that newly fail and that recovered, and how many still fail."""
    return (
        [change.key.model for change in changes.failing], [change.key.model for change in changes.recovered],
        changes.still_failing,
    )  # fmt: skip


def test_only_news_is_reported() -> None:
    """What fails at first is news, then no more; it is news again when it passes."""
    tracker = ChangeTracker()
    assert models(tick(tracker, a="failed", b="passed")) == (["a"], [], 0)
    assert models(tick(tracker, a="failed", b="passed")) == ([], [], 1)
    assert models(tick(tracker, a="passed", b="failed")) == (["b"], ["a"], 0)
    assert models(tick(tracker, a="passed")) == ([], [], 0)
    assert models(tick(tracker, b="passed")) == ([], ["b"], 0)


def test_what_is_not_scored_changes_nothing() -> None:
    """Neither an unscored result nor the failures of a suspect tick."""
    tracker = ChangeTracker()
    tick(tracker, a="passed", b="failed")
    assert models(tick(tracker, a="unscored", b="unscored")) == ([], [], 0)
    assert models(tick(tracker, "suspect", a="failed", b="passed")) == ([], ["b"], 0)
    assert models(tick(tracker, a="failed")) == (["a"], [], 0)


def test_a_new_process_goes_on_where_the_last_one_ended() -> None:
    """Outcomes of the store count, unscored ones not."""
    tracker = ChangeTracker()
    keys = {name: job_for(name).key for name in "abc"}
    tracker.restore([(keys["a"], "failed"), (keys["b"], "passed"), (keys["c"], "unscored")])
    assert isinstance(keys["a"], CapabilityKey)
    assert models(tick(tracker, a="failed", b="passed", c="failed")) == (["c"], [], 1)


def test_how_the_tick_ended_is_news_too() -> None:
    """Once when it fails, once when it finishes again; a tester that was stopped is no news."""
    tracker = ChangeTracker()
    states = ("finished", "failed", "failed", "finished", "finished", "suspect", "finished")
    assert [tracker.finish(state).is_change(state) for state in states] == [
        False, True, False, True, False, True, True,
    ]  # fmt: skip
