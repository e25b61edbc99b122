"""Find the instants at which a cron expression fires in a timezone, also where clocks are put forward or back.

cronsim reads the expression and searches the calendar, in local times that know no timezone; this module maps those to
instants. The rules are those of Debian's cron:

- An expression whose minute or hour field begins with `*` follows real time: it fires whenever the clock on the wall
  shows a time that matches. In a repeated hour it therefore fires in both, and a time that is left out never comes.
- Any other expression names times of day, and fires once for each. Times that the clock leaves out fire, once for all
  of them, when it jumps; of a time that comes twice only the first counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
# Each step of a search passes one change of the clock or one repeated minute; no zone ever had as many in 50 years.
_MAX_STEPS = 5_000


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """A valid cron expression of five fields in a timezone."""

    expression: str
    zone: ZoneInfo

    @classmethod
    def parse(cls, expression: str, timezone: str = "UTC") -> CronSchedule:
        """Return the schedule of five fields or an alias such as @hourly. Raises ValueError that names the field."""
        text = _ALIASES.get(expression.strip().lower(), expression)
        fields = text.split()
        if len(fields) != len(_FIELDS):
            raise ValueError(
                f"a cron expression has five fields (minute, hour, day of the month, month, day of the week), "
                f"not {len(fields)}; or use one of {', '.join(_ALIASES)}"
            )
        for index, (name, field) in enumerate(zip(_FIELDS, fields, strict=True)):
            # cronsim does not report which field it refuses, so each is tried among fields that it accepts.
            alone = ["*"] * len(_FIELDS)
            alone[index] = field
            try:
                CronSim(" ".join(alone), datetime(2000, 1, 1))  # noqa: DTZ001 - a local time
            except (CronSimError, ValueError) as error:
                raise ValueError(
                    f"{expression!r} is not a cron expression: its {name}, {field!r}, is not understood"
                ) from error
        schedule = cls(" ".join(fields), ZoneInfo(timezone))
        if schedule._match(datetime(2000, 1, 1)) is None:  # noqa: DTZ001 - a local time
            raise ValueError(f"{expression!r} is a cron expression that never fires: there is no such day")
        return schedule

    @property
    def names_times_of_day(self) -> bool:
        """Return True if it fires at fixed times of day, none of which a change of the clock drops or doubles."""
        return not any(field.startswith("*") for field in self.expression.split()[:2])

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first instant of the schedule after `instant`, in UTC; None if the calendar holds no more."""
        try:
            return self._search(instant.astimezone(UTC).replace(microsecond=0) + _SECOND)
        except OverflowError:  # the end of the calendar, year 9999
            return None

    def _search(self, start: datetime) -> datetime | None:
        """Return the first instant of the schedule at or after `start`, a whole second."""
        for _ in range(_MAX_STEPS):
            offset = self._offset(start)
            match = self._match(_local(start, offset))
            if match is None:
                return None
            instant = match.replace(tzinfo=UTC) - offset
            change = self._change(start, instant)
            if change is None:
                # fold: this wall time was there an hour before, and only the first of both counts.
                if not (self.names_times_of_day and instant.astimezone(self.zone).fold):
                    return instant
                start = instant + _SECOND
            elif self.names_times_of_day and match < _local(change, self._offset(change)):
                # The clock jumps over the match, which therefore fires when it jumps.
                return change
            else:
                start = change
        return None

    def _match(self, local: datetime) -> datetime | None:
        # The first local time at or after `local`; None if there is none in 50 years, where cronsim gives up.
        try:
            return next(CronSim(self.expression, local - _SECOND), None)
        except CronSimError:
            return None

    def _change(self, start: datetime, end: datetime) -> datetime | None:
        """Return the first instant in (start, end] at which the zone's offset differs; None if there is none."""
        offset = self._offset(start)
        before = start
        while before < end:
            after = min(before + _DAY, end)
            if self._offset(after) != offset:  # somewhere in this day: bisect to the second
                while after - before > _SECOND:
                    middle = before + ((after - before) // 2 // _SECOND) * _SECOND
                    before, after = (middle, after) if self._offset(middle) == offset else (before, middle)
                return after
            before = after
        return None

    def _offset(self, instant: datetime) -> timedelta:
        offset = instant.astimezone(self.zone).utcoffset()
        assert offset is not None
        return offset


def _local(instant: datetime, offset: timedelta) -> datetime:
    return (instant + offset).replace(tzinfo=None)
