"""What a look-up proves about a stat: a hit is final, an absence needs a complete answer and enough time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.leaderboard.reconciliation import (
    UNPROVEN_PROBLEMS,
    StatProof,
    conclude,
    count_same_evidence,
    counts_as_evidence,
    wait_until_settled,
)
from jobtester.leaderboard.stat_reader import Completeness, ExpectedRow, LookUp
from jobtester.store.outbox import OutboxEntry

C = Completeness


@pytest.mark.parametrize(
    ("rows", "completeness", "age_s", "later_stored_s", "duration_s", "look_ups", "proof"),
    [
        (1, C.CONTROL_MISSING, 0, None, 20, 0, StatProof.STORED),
        (0, C.CONTROL_SHOWN, 89, 50, 0, 0, StatProof.TOO_EARLY),
        (0, C.CONTROL_SHOWN, 91, 50, 0, 0, StatProof.ABSENT),
        (0, C.CONTROL_SHOWN, 91, 1, 0, 0, StatProof.TOO_EARLY),
        (0, C.CONTROL_SHOWN, 250, None, 0, 0, StatProof.TOO_EARLY),
        (0, C.CONTROL_SHOWN, 301, None, 0, 0, StatProof.ABSENT),
        (0, C.CONTROL_MISSING, 10_000, 9000, 0, 9, StatProof.UNPROVEN),
        (0, C.WITNESS_MISSING, 10_000, 9000, 0, 9, StatProof.UNPROVEN),
        (0, C.WITNESS_SHOWN, 200, 100, 0, 9, StatProof.TOO_EARLY),
        (0, C.WITNESS_SHOWN, 301, 100, 0, 0, StatProof.UNPROVEN),
        (0, C.WITNESS_SHOWN, 301, 100, 0, 1, StatProof.ABSENT),
        (0, C.WITNESS_SHOWN, 301, 100, 20, 1, StatProof.UNPROVEN),
        (0, C.CONTROL_GONE, 301, 100, 0, 2, StatProof.UNPROVEN),
        (0, C.CONTROL_GONE, 301, 100, 0, 3, StatProof.ABSENT),
        (0, C.CONTROL_GONE, 301, 100, 20, 3, StatProof.UNPROVEN),
        (0, C.NOTHING_TO_COMPARE, 10_000, None, 0, 9, StatProof.UNPROVEN),
    ],
)
def test_what_a_look_up_proves(
    rows: int,
    completeness: Completeness,
    age_s: float,
    later_stored_s: float | None,
    duration_s: float,
    look_ups: int,
    proof: StatProof,
) -> None:
    """Each row is a case of the contract's 6.1, with 90 s as the time that the server itself may take."""
    assert conclude(LookUp(rows, completeness, age_s, later_stored_s, duration_s, look_ups), 90.0) is proof


@given(
    st.sampled_from([C.CONTROL_MISSING, C.WITNESS_MISSING, C.NOTHING_TO_COMPARE]),
    st.floats(0, 1e7), st.none() | st.floats(0, 1e7), st.floats(0, 60), st.integers(0, 100),
)  # fmt: skip
def test_no_answer_without_a_stored_row_proves_an_absence(
    completeness: Completeness, age_s: float, later_stored_s: float | None, duration_s: float, look_ups: int
) -> None:
    """However old the stat is and however often it was missed."""
    assert conclude(LookUp(0, completeness, age_s, later_stored_s, duration_s, look_ups), 90.0) is not StatProof.ABSENT


def test_without_anything_to_compare_a_person_may_accept_the_risk() -> None:
    """`uncertain = "resend"` lets two misses count although no stat was ever stored; `hold` never does."""
    look_up = LookUp(0, C.NOTHING_TO_COMPARE, 301, None, 0, 1)
    assert conclude(look_up, 90.0) is StatProof.UNPROVEN
    assert conclude(look_up, 90.0, accept_without_comparison=True) is StatProof.ABSENT


@pytest.mark.parametrize(
    ("completeness", "age_s", "duration_s", "counts"),
    [
        (C.WITNESS_SHOWN, 300, 0, True),
        (C.CONTROL_GONE, 300, 4.9, True),
        (C.NOTHING_TO_COMPARE, 300, 0, True),
        (C.WITNESS_SHOWN, 299, 0, False),
        (C.WITNESS_SHOWN, 300, 5, False),
        (C.WITNESS_MISSING, 300, 0, False),
        (C.CONTROL_MISSING, 300, 0, False),
    ],
)
def test_which_look_ups_count(completeness: Completeness, age_s: float, duration_s: float, counts: bool) -> None:
    """Only quick answers, after the time in which an orphaned statement can still store the stat."""
    assert counts_as_evidence(LookUp(0, completeness, age_s, None, duration_s, 0), 90.0) is counts


@pytest.mark.parametrize(
    ("changes", "matches"),
    [
        ({}, True),
        ({"round_trip_time": 1.5000000000000002}, False),
        ({"round_trip_time": 9.0, "input_parameters": '{"job": "job-1"}'}, True),
        ({"timestamp": 8}, False),
        ({"timestamp": 8, "input_parameters": '{"job": "job-1"}'}, False),
        ({"region": "LAX"}, False),
    ],
)
def test_a_row_is_recognized(changes: dict[str, object], matches: bool) -> None:
    """By its region and instant, and by its exact round trip or our job."""
    expected = ExpectedRow("0x1", "llm", "m", "FRA", 7, 1.5, "job-1")
    row = {"region": "FRA", "timestamp": 7, "round_trip_time": 1.5, "input_parameters": "{}"}
    assert expected.matches(row | changes) is matches


def test_another_testers_row_is_recognized_by_its_values_alone() -> None:
    """A stat that was forwarded carries no job of ours."""
    row = {"region": "FRA", "timestamp": 7, "round_trip_time": 9.0, "input_parameters": ""}
    assert not ExpectedRow("0x1", "llm", "m", "FRA", 7, 1.5).matches(row)
    assert ExpectedRow("0x1", "llm", "m", "FRA", 7, 9.0).matches(row)


def missed_entry(problem: str, look_ups: int) -> OutboxEntry:
    """Return an uncertain stat that was missed `look_ups` times, the last time with this problem."""
    fields: dict[str, Any] = dict.fromkeys(OutboxEntry.__dataclass_fields__)
    return OutboxEntry(**fields | {"problem": problem, "look_ups": look_ups})


@pytest.mark.parametrize("before", list(UNPROVEN_PROBLEMS))
@pytest.mark.parametrize("now", list(UNPROVEN_PROBLEMS))
def test_only_look_ups_of_one_kind_add_up(before: Completeness, now: Completeness) -> None:
    """Four misses where the control row is gone, or two beside a witness: not some of one and some of the other."""
    look_up = LookUp(0, now, 301, 100, 0, 3)
    counted = count_same_evidence(look_up, missed_entry(UNPROVEN_PROBLEMS[before], 3))
    assert counted.look_ups == (3 if before is now else 0)
    assert count_same_evidence(look_up, missed_entry("the connection broke", 3)).look_ups == 0


@pytest.mark.parametrize(
    ("age_s", "later_stored_s", "wait_s"),
    [
        (0, None, 15.0),
        (80, None, 10.0),
        (89.9, None, 1.0),
        (91, None, 15.0),
        (290, None, 10.0),
        (299.9, None, 1.0),
        (91, 1.0, 4.0),
    ],
)
def test_the_next_look_up_waits_until_a_miss_would_count(
    age_s: float, later_stored_s: float | None, wait_s: float
) -> None:
    """Each costs the server a query; a hit may come at any time, so no wait is longer than a quarter of a minute."""
    look_up = LookUp(0, C.CONTROL_SHOWN, age_s, later_stored_s, 0, 0)
    assert wait_until_settled(look_up, 90.0) == pytest.approx(wait_s)
