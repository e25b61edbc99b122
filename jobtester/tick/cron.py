"""Standard cron expressions, as APScheduler triggers: 0 and 7 are Sunday, two restricted day fields mean either."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?")


def trigger(expression: str, timezone: str) -> BaseTrigger:
    """Read a cron expression of five fields, or an alias such as @hourly. Raises ValueError that says what is wrong."""
    fields = _ALIASES.get(expression.strip().lower(), expression).split()
    if len(fields) != 5:
        raise ValueError(f"a cron expression has five fields (minute hour day month weekday), not {len(fields)}")
    minute, hour, day, month, weekday = fields
    zone = ZoneInfo(timezone)

    def build(**days: str) -> CronTrigger:
        return CronTrigger(minute=minute, hour=hour, month=month.lower(), timezone=zone, **days)

    try:
        if weekday == "*":
            found: BaseTrigger = build(day=day)
        elif day == "*":
            found = build(day_of_week=_weekdays(weekday))
        else:
            found = OrTrigger([build(day=day), build(day_of_week=_weekdays(weekday))])
    except ValueError as error:
        raise ValueError(f"{expression!r} is not a cron expression: {error}") from error
    if found.get_next_fire_time(None, datetime.now(zone)) is None:
        raise ValueError(f"{expression!r} is a cron expression of an instant that never comes")
    return found


def _weekdays(field: str) -> str:
    """Spell out a weekday field by name, since APScheduler counts from Monday and cron from Sunday."""
    found: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"weekday {part!r} is not understood")
        if match["first"] == "*":
            first, last = 0, 6
        else:
            first = _weekday(match["first"])
            last = _weekday(match["last"]) if match["last"] else 6 if match["step"] else first
        step = int(match["step"] or 1)
        if step < 1 or first > last:
            raise ValueError(f"weekday {part!r} is not understood")
        found |= {day % 7 for day in range(first, last + 1, step)}
    return ",".join(_DAYS[day] for day in sorted(found))


def _weekday(text: str) -> int:
    if text.lower() in _DAYS:
        return _DAYS.index(text.lower())
    if text.isdecimal() and int(text) <= 7:
        return int(text)
    raise ValueError(f"weekday {text!r} is not 0 to 7 or sun to sat")
