"""Cron means what cron means, and the clock is aligned with the wall."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobtester.settings.cron import CronSchedule
from jobtester.settings.sections import ScheduleSettings
from jobtester.tick.schedule import Schedule, longest_interval_s, make_trigger

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
        ("@daily", "2026-11-24T00:00"),
        ("@midnight", "2026-11-24T00:00"),
        ("@weekly", "2026-11-29T00:00"),
        ("@Monthly", "2026-12-01T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("@annually", "2027-01-01T00:00"),
        ("0 0 */10 * 1", "2026-12-21T00:00"),
        ("0 0 29 feb *", "2028-02-29T00:00"),
        ("5/20 10 * * *", "2026-11-23T10:25"),
        ("10-50/20,18 10 * * *", "2026-11-23T10:18"),
        ("15 10 23 NOV *", "2027-11-23T10:15"),
    ],
)
def test_cron_fires_when_cron_would(expression: str, expected: str) -> None:
    """0 and 7 are Sunday, two restricted day fields mean either, names and aliases work."""
    instant = CronSchedule.parse(expression).next_after(START)
    assert instant is not None
    assert instant.strftime("%Y-%m-%dT%H:%M") == expected


@pytest.mark.parametrize(
    ("nonsense", "problem"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("@reboot", "@hourly"),
        ("61 * * * *", "its minute, '61'"),
        ("* 24 * * *", "its hour, '24'"),
        ("* * 0 * *", "its day of the month, '0'"),
        ("* * * foo *", "its month, 'foo'"),
        ("* * * * 8", "its day of the week, '8'"),
        ("a b c d e", "its minute, 'a'"),
        ("* * * * 5-2", "its day of the week, '5-2'"),
        ("*/0 * * * *", "its minute, '*/0'"),
        ("9" * 5000 + " * * * *", "its minute"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 2,4,6,9,11 *", "never fires"),
        ("0 0 */20 * 1L", "never fires"),
    ],
)
def test_cron_nonsense_is_refused_with_words(nonsense: str, problem: str) -> None:
    """Whatever is no cron expression, or never fires, raises ValueError that names the field."""
    with pytest.raises(ValueError, match="cron expression") as raised:
        CronSchedule.parse(nonsense)
    assert problem in str(raised.value)


@given(st.text("0123456789*/,-#LWFRISUNMONJAN @", max_size=24))
@settings(max_examples=500)
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    """Nothing else than ValueError comes out of reading, and what was read fires after any instant."""
    try:
        schedule = CronSchedule.parse(text, "Europe/Berlin")
    except ValueError:
        return
    following = schedule.next_after(START)
    assert following is not None
    assert following > START


def test_intervals_are_aligned_with_the_wall_clock() -> None:
    """An hourly tick with offset 10 m fires at ten past, whenever the daemon was started."""
    aligned = make_trigger(ScheduleSettings(interval="1h", offset="10m"))
    first = aligned.get_next_fire_time(None, START)
    assert first == datetime(2026, 11, 23, 11, 10, tzinfo=UTC)
    assert aligned.get_next_fire_time(first, first) == first + timedelta(hours=1)


def test_cron_may_be_shifted() -> None:
    """The offset staggers cron schedules too."""
    shifted = make_trigger(ScheduleSettings(cron="0 * * * *", offset="90s"))
    first = shifted.get_next_fire_time(None, START)
    assert first == datetime(2026, 11, 23, 11, 1, 30, tzinfo=UTC)
    assert shifted.get_next_fire_time(first, first) == first + timedelta(hours=1)


def walk_schedule(schedule: ScheduleSettings, start: datetime, count: int) -> list[tuple[datetime, float]]:
    """Return each instant of a schedule with the interval that holds from it on, as the schedule remembers instants."""
    trigger = make_trigger(schedule)
    instants: list[tuple[datetime, float]] = []
    passed = [start]
    for _ in range(count):
        expected = trigger.get_next_fire_time(passed[-1] if instants else None, passed[-1])
        assert expected is not None
        passed.append(expected)
        follows = trigger.get_next_fire_time(expected, expected)
        assert follows is not None
        instants.append((expected, longest_interval_s(trigger, [*passed[-3:], follows])))
    return instants


def test_with_an_interval_nobody_is_late_before_two_of_them() -> None:
    """Whenever it was started, the reported interval is the configured one."""
    assert {
        interval_s for _, interval_s in walk_schedule(ScheduleSettings(interval="10m", offset="90s"), START, 20)
    } == {600.0}
    fresh = Schedule(ScheduleSettings(interval="10m"), lambda _: None)
    assert fresh.interval_s == 600.0


def test_a_pause_of_a_cron_schedule_makes_nobody_late() -> None:
    """Office hours: twice the reported interval is never over before the next tick, if each ended at its instant.

    And two ticks after a pause, the reported interval is an hour again: a tick that hangs is noticed as fast as ever.
    """
    instants = walk_schedule(ScheduleSettings(cron="0 9-17 * * 1-5"), START, 120)
    for (before, _), (at, interval_s) in pairwise(instants):
        assert (at - before).total_seconds() < 2 * interval_s, at
    by_hour = {at.strftime("%a %H"): interval_s for at, interval_s in instants}
    assert by_hour["Wed 12"] == by_hour["Mon 11"] == 3600.0
    assert by_hour["Fri 17"] == by_hour["Mon 10"] == 64 * 3600.0


async def test_a_cron_schedule_knows_its_interval() -> None:
    """From its start and after a change, without having fired."""
    schedule = Schedule(ScheduleSettings(cron="0 */2 * * *"), lambda _: None)
    assert schedule.interval_s == 7200.0
    schedule.start()
    assert schedule.interval_s == 7200.0
    schedule.reconfigure(ScheduleSettings(cron="@daily"))
    assert schedule.interval_s == 86400.0
    schedule.stop()
