"""What an answer proves about a stat: a hit is final, an absence needs a whole answer and enough time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.leaderboard.reconciliation import StatProof, conclude
from jobtester.leaderboard.stat_reader import Completeness, LookUp

C = Completeness


@pytest.mark.parametrize(
    ("rows", "completeness", "age_s", "later_s", "took_s", "looks", "proof"),
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
def test_what_a_look_proves(
    rows: int,
    completeness: Completeness,
    age_s: float,
    later_s: float | None,
    took_s: float,
    looks: int,
    proof: StatProof,
) -> None:
    """Each row is a case of the contract's 6.1, with 90 s as the time that the server itself may take."""
    assert conclude(LookUp(rows, completeness, age_s, later_s, took_s, looks), 90.0) is proof


@given(
    st.sampled_from([C.CONTROL_MISSING, C.WITNESS_MISSING, C.NOTHING_TO_COMPARE]),
    st.floats(0, 1e7), st.none() | st.floats(0, 1e7), st.floats(0, 60), st.integers(0, 100),
)  # fmt: skip
def test_no_answer_without_a_known_row_proves_an_absence(
    completeness: Completeness, age_s: float, later_s: float | None, took_s: float, looks: int
) -> None:
    """However old the stat is and however often it was missed."""
    assert conclude(LookUp(0, completeness, age_s, later_s, took_s, looks), 90.0) is not StatProof.ABSENT
