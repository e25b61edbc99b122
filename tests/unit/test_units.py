"""Durations as people read them."""

from __future__ import annotations

import pytest

from jobtester.domain.units import format_duration, parse_duration


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"), (0.0004, "0.4ms"), (0.25, "250ms"), (0.9994, "999ms"), (0.9997, "1s"), (1, "1s"), (12.345, "12.3s"),
        (59.97, "60s"), (60, "1m"), (3599.7, "1h"), (5400, "1h30m"), (90_061, "1d1h1m1s"),
    ],
)  # fmt: skip
def test_a_duration_is_short_and_can_be_read_back(seconds: float, shown: str) -> None:
    """Three digits at the most below a minute, whole seconds above, and never an exponent."""
    assert format_duration(seconds) == shown
    assert parse_duration(shown) == pytest.approx(seconds, rel=0.005)
