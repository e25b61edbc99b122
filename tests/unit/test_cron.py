"""Cron means what cron means, and the clock is aligned with the wall."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobtester.settings import Schedule
from jobtester.tick import clock, cron

START = datetime(2026, 11, 23, 10, 17, 30, tzinfo=UTC)  # a Monday


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 */2 * * *", "2026-11-23T12:00"),
        ("30 9 * * *", "2026-11-24T09:30"),
        ("0 0 * * 0", "2026-11-29T00:00"),
        ("0 0 * * 7", "2026-11-29T00:00"),
        ("0 0 * * 1", "2026-11-30T00:00"),
        ("0 0 * * mon-fri", "2026-11-24T00:00"),
        ("0 0 * * 5-7", "2026-11-27T00:00"),
        ("0 0 * * */3", "2026-11-25T00:00"),
        ("0 0 1 * 3", "2026-11-25T00:00"),
        ("0 0 24 * 5", "2026-11-24T00:00"),
        ("@hourly", "2026-11-23T11:00"),
        ("15 10 23 NOV *", "2027-11-23T10:15"),
    ],
)
def test_cron_fires_when_cron_would(expression: str, expected: str) -> None:
    """0 and 7 are Sunday, two restricted day fields mean either, names and aliases work."""
    found = cron.trigger(expression, "UTC").get_next_fire_time(None, START)
    assert found is not None
    assert found.strftime("%Y-%m-%dT%H:%M") == expected


@pytest.mark.parametrize(
    "nonsense", ["", "* * * *", "61 * * * *", "* * * * 8", "a b c d e", "* * * * 5-2", "0 0 31 2 x"]
)
def test_cron_nonsense_is_refused_with_words(nonsense: str) -> None:
    """Whatever is no cron expression raises ValueError with a sentence."""
    with pytest.raises(ValueError, match=r"cron expression|weekday"):
        cron.trigger(nonsense, "UTC")


def test_intervals_are_aligned_with_the_wall_clock() -> None:
    """An hourly tick with offset 10 m fires at ten past, whenever the daemon was started."""
    aligned = clock.trigger(Schedule(interval="1h", offset="10m"))
    first = aligned.get_next_fire_time(None, START)
    assert first == datetime(2026, 11, 23, 11, 10, tzinfo=UTC)
    assert aligned.get_next_fire_time(first, first) == first + timedelta(hours=1)


def test_cron_may_be_shifted() -> None:
    """The offset staggers cron schedules too."""
    shifted = clock.trigger(Schedule(cron="0 * * * *", offset="90s"))
    first = shifted.get_next_fire_time(None, START)
    assert first == datetime(2026, 11, 23, 11, 1, 30, tzinfo=UTC)
    assert shifted.get_next_fire_time(first, first) == first + timedelta(hours=1)
