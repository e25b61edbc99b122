"""A tick is suspect if nearly everything failed in one way; a single odd failure shows that it is not the path."""

from __future__ import annotations

import pytest

from jobtester.domain.suspect_detection import SuspectDetector
from tests.harness.results import make_result


def detect(*codes: str) -> SuspectDetector:
    """Return a detector that has counted results with these reasons."""
    detector = SuspectDetector()
    for code in codes:
        detector.add_result(make_result(code))
    return detector


@pytest.mark.parametrize(
    ("codes", "is_suspect"),
    [
        (["503"] * 9, False),
        (["503"] * 10, True),
        (["503"] * 9 + ["ok"], True),
        (["503"] * 8 + ["ok"] * 2, False),
        (["503"] * 9 + ["timeout"], False),
        (["503"] * 9 + ["busy"], True),
        (["busy"] * 10, False),
        ([], False),
    ],
    ids=["too few", "all alike", "one passed", "one in five passed", "two reasons", "one unscored", "unscored", "none"],
)
def test_ten_failures_of_one_kind_are_suspect(codes: list[str], is_suspect: bool) -> None:
    """Unscored results count as jobs that did not pass, but have no reason of their own."""
    assert detect(*codes).is_suspect == is_suspect


def test_failures_wait_until_something_has_passed() -> None:
    """Before that, the first failures of a broken path would already be posted."""
    assert detect("503").should_hold
    assert not detect("503", "ok").should_hold
    assert detect(*["503"] * 9, "ok").should_hold
