"""Cron where clocks are put forward or back, against a list that is made by walking through every minute of a year."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobtester.settings.sections import ScheduleSettings
from jobtester.tick.schedule import IntervalTrigger, make_trigger

MINUTE = timedelta(minutes=1)
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Santiago",
    "Asia/Kathmandu", "Pacific/Chatham", "America/St_Johns", "Asia/Tehran", "Pacific/Apia", "Africa/Casablanca",
    "America/Havana", "Asia/Beirut", "Antarctica/Troll", "America/Nuuk",
)  # fmt: skip
YEARS = {"Pacific/Apia": (2011, 2026), "Asia/Tehran": (2022, 2026), "Asia/Kathmandu": (1986, 2026)}
EXPRESSIONS = (
    "*/30 * * * *", "30 */2 * * 1-5", "0 0 * * 1", "0 0 * * *", "15 0,1,2,3 * * *", "0,30 2 * * *", "*/10 3 * * *",
    "7 * * * *", "*/25 0-3 * * 0", "45 23 13 * 5", "59 1 1-31 * *", "0 12 29 2 *", "20-40/10 1-3 * 3-4,9-11 sun,6",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reference:
    """Cron as it is documented, read and searched without the library, minute by minute."""

    minutes: set[int]
    hours: set[int]
    days: set[int]
    months: set[int]
    weekdays: set[int]
    either_day: bool
    times_of_day: bool

    @classmethod
    def read(cls, expression: str) -> Reference:
        """Return the fields of an expression as sets of numbers."""
        minute, hour, day, month, weekday = expression.split()
        return cls(
            _values(minute, 0, 59), _values(hour, 0, 23), _values(day, 1, 31), _values(month, 1, 12),
            {value % 7 for value in _values(weekday, 0, 7)},
            either_day=day[0] != "*" and weekday[0] != "*", times_of_day=minute[0] != "*" and hour[0] != "*",
        )  # fmt: skip

    def matches(self, local: datetime) -> bool:
        """Return True if a minute of local time matches, by day of the month or of the week where both are given."""
        if local.minute not in self.minutes or local.hour not in self.hours or local.month not in self.months:
            return False
        day, weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return day or weekday if self.either_day else day and weekday

    def instants(self, walk: Sequence[tuple[datetime, datetime]], start: datetime) -> Iterator[datetime]:
        """Yield each minute of real time at which the schedule fires, by what a clock on the wall shows."""
        again: set[datetime] = set()
        before = walk[0][1]
        for moment, local in walk[1:]:
            hit = self.matches(local)
            if self.times_of_day and local != before + MINUTE:
                left_out = [before + MINUTE * n for n in range(1, int((local - before) / MINUTE))]
                hit = hit or any(self.matches(skipped) for skipped in left_out)
                again |= {local + MINUTE * n for n in range(int((before - local) / MINUTE) + 1)}
            if local in again:
                hit = False
                again.discard(local)
            if hit and moment >= start:
                yield moment
            before = local


def wall_clock_minutes(zone: ZoneInfo, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Return every minute of real time, from two days before, with what a clock on the wall shows."""
    minutes = int((end - start) / MINUTE)
    moments = (start + MINUTE * n for n in range(-2 * 1440, minutes))
    return [(moment, moment.astimezone(zone).replace(tzinfo=None)) for moment in moments]


def _values(field: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for part in field.replace("sun", "0").split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start, stop = (low, high) if first == "*" else (int(first), int(last or (high if step else first)))
        values |= set(range(start, stop + 1, int(step or 1)))
    return values


def trigger_instants(schedule: ScheduleSettings, start: datetime, end: datetime) -> list[datetime]:
    """Return the trigger's instants as APScheduler asks for them, each from the one before."""
    trigger = make_trigger(schedule)
    instants: list[datetime] = []
    following = trigger.get_next_fire_time(None, start)
    while following is not None and following < end:
        instants.append(following)
        following = trigger.get_next_fire_time(following, following)
    return instants


@pytest.mark.parametrize(
    "zone",
    ["Europe/Berlin", *(pytest.param(zone, marks=pytest.mark.slow) for zone in ZONES if zone != "Europe/Berlin")],
)
def test_a_whole_year_is_as_a_walk_through_it(zone: str) -> None:
    """Strictly increasing, and exactly the instants of the written rules, whatever the zone does with its clocks."""
    for year in YEARS.get(zone, (2026,)):
        start, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
        walk = wall_clock_minutes(ZoneInfo(zone), start, end)
        for expression in EXPRESSIONS:
            instants = trigger_instants(ScheduleSettings(cron=expression, timezone=zone), start, end)
            assert instants == list(Reference.read(expression).instants(walk, start)), expression
            assert all(before < after for before, after in pairwise(instants))


@given(
    zone=st.sampled_from(ZONES),
    expression=st.sampled_from(EXPRESSIONS),
    now=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - made UTC below
    before_s=st.integers(0, 10**8),
)
@settings(max_examples=300)
def test_an_instant_is_never_in_the_past(zone: str, expression: str, now: datetime, before_s: int) -> None:
    """However long ago the one before was: after a sleep of the machine the next instant is the next from now."""
    now = now.replace(tzinfo=UTC)
    trigger = make_trigger(ScheduleSettings(cron=expression, timezone=zone))
    following = trigger.get_next_fire_time(now - timedelta(seconds=before_s), now)
    assert following is not None
    assert following > now
    assert following == trigger.get_next_fire_time(now, now)
    ahead = now + timedelta(seconds=before_s)
    later = trigger.get_next_fire_time(ahead, now)
    assert later is not None
    assert later > ahead


@given(
    period_s=st.floats(1e-6, 366 * 86_400),
    offset_s=st.floats(0, 366 * 86_400),
    now=st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)),  # noqa: DTZ001 - made UTC below
)
@settings(max_examples=300)
def test_aligned_instants_strictly_increase(period_s: float, offset_s: float, now: datetime) -> None:
    """Whatever the period, however its fractions round."""
    moment = now.replace(tzinfo=UTC)
    trigger = IntervalTrigger(period_s, offset_s)
    for _ in range(5):
        following = trigger.get_next_fire_time(moment, moment)
        assert following is not None
        assert moment < following <= moment + timedelta(seconds=period_s, microseconds=1)
        moment = following


def instants(expression: str, zone: str, start: str, count: int, offset: str = "0s") -> list[str]:
    """Return the first instants after a start, as the zone's clock shows them with its offset."""
    trigger = make_trigger(ScheduleSettings(cron=expression, timezone=zone, offset=offset))
    moment = datetime.fromisoformat(start).astimezone(UTC)
    shown = []
    for _ in range(count):
        following = trigger.get_next_fire_time(moment, moment)
        assert following is not None
        moment = following
        shown.append(moment.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M%z"))
    return shown


def test_the_end_of_summer_time_goes_on_in_real_time() -> None:
    """Every half hour means that, also started inside the repeated hour; a time of day comes once."""
    assert instants("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:45+02:00", 5) == [
        "10-25 02:00+0200", "10-25 02:30+0200", "10-25 02:00+0100", "10-25 02:30+0100", "10-25 03:00+0100",
    ]  # fmt: skip
    assert instants("*/30 * * * *", "Europe/Berlin", "2026-10-25T02:10+01:00", 1) == ["10-25 02:30+0100"]
    assert instants("30 2 * * *", "Europe/Berlin", "2026-10-25T01:45+02:00", 2) == [
        "10-25 02:30+0200", "10-26 02:30+0100",
    ]  # fmt: skip
    assert instants("30 2 * * *", "Europe/Berlin", "2026-10-25T02:10+01:00", 1) == ["10-26 02:30+0100"]


def test_the_begin_of_summer_time_loses_nothing() -> None:
    """Monday 00:30 comes, and so does every week; times of day that are left out fire once, when the clock jumps."""
    assert instants("30 */2 * * 1-5", "Europe/Berlin", "2026-03-27T22:00+01:00", 2) == [
        "03-27 22:30+0100", "03-30 00:30+0200",
    ]  # fmt: skip
    assert instants("0 0 * * 1", "America/New_York", "2026-03-07T12:00-05:00", 2) == [
        "03-09 00:00-0400", "03-16 00:00-0400",
    ]  # fmt: skip
    assert instants("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00+01:00", 3) == [
        "03-29 03:00+0200", "03-30 02:00+0200", "03-30 02:30+0200",
    ]  # fmt: skip
    assert instants("0 0 * * 0", "America/Santiago", "2026-09-05T12:00-04:00", 2) == [
        "09-06 01:00-0300", "09-13 00:00-0300",
    ]  # fmt: skip


def test_an_offset_is_real_time_too() -> None:
    """It shifts the instants, not the local times."""
    assert instants("0 2 * * *", "Europe/Berlin", "2026-10-24T12:00+02:00", 1, offset="90m") == ["10-25 02:30+0100"]
