"""The budget leaves out what cannot be paid, and what was tested today first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.plan import Plan, calculate_allowance_wei, limit_to_budget


def plan(*prices: int | None) -> Plan:
    """Plan one job per price, each on an orchestrator of its own."""
    jobs = tuple(
        Job(
            id=str(at),
            tick="t",
            orchestrator=Orchestrator(f"0x{at:040x}", f"https://o{at}:8935", ()),
            capability=Capability("llm", "m"),
            pipeline_name="Llm",
            timeout_s=1,
            expected_s=1,
            price_wei=price,
        )
        for at, price in enumerate(prices)
    )
    return Plan("t", 1, jobs, ())


def ids(limited: Plan) -> list[str]:
    """Return the jobs that are left."""
    return [job.id for job in limited.jobs]


def test_no_bound_changes_nothing() -> None:
    """Without a budget, or with one that suffices, the plan is the same."""
    whole = plan(5, 5)
    assert limit_to_budget(whole, None, set()) is whole
    assert limit_to_budget(whole, 10, set()) is whole


def test_what_was_tested_today_goes_first() -> None:
    """A capability that was tested today is left out, whatever its place."""
    whole = plan(4, 4, 4)
    cut = limit_to_budget(whole, 8, {whole.jobs[0].key})
    assert ids(cut) == ["1", "2"]
    assert [(skip.orchestrator, skip.reason) for skip in cut.skipped] == [
        (whole.jobs[0].orchestrator.address, "budget")
    ]


def test_an_expensive_job_does_not_displace_cheap_ones() -> None:
    """What does not fit is passed over; what costs nothing known stays."""
    assert ids(limit_to_budget(plan(9, 3, None, 3), 6, set())) == ["1", "2", "3"]


def test_the_day_bounds_the_tick() -> None:
    """The smaller of both bounds holds, and a day that is used up leaves nothing."""
    assert calculate_allowance_wei(None, None, 5) is None
    assert calculate_allowance_wei(7, None, 100) == 7
    assert calculate_allowance_wei(7, 10, 5) == 5
    assert calculate_allowance_wei(7, 10, 15) == 0


@given(st.lists(st.none() | st.integers(0, 10**20), max_size=12), st.integers(0, 10**20))
def test_never_more_than_the_budget(prices: list[int | None], most: int) -> None:
    """Every job is either paid or skipped, and the paid ones fit."""
    whole = plan(*prices)
    cut = limit_to_budget(whole, most, {job.key for job in whole.jobs[::2]})
    assert cut.price_wei <= most
    assert len(cut.jobs) + len(cut.skipped) == len(whole.jobs)
