"""The clock: says when a tick is due. APScheduler is used as a clock only; ticks run elsewhere."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from jobtester.settings import Schedule
from jobtester.tick import cron

_MOST_MISSED = 10_000
_REMEMBERED = 3


class Aligned(BaseTrigger):
    """Fires at whole multiples of a period since the Unix epoch, shifted by an offset; both in seconds."""

    def __init__(self, period_s: float, offset_s: float) -> None:
        """Take a period above 0 and any offset."""
        self.period_s = period_s
        self.offset_s = offset_s % period_s

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Give the first aligned instant after the previous one, else not before now."""
        if previous_fire_time is not None:
            count = round((previous_fire_time.timestamp() - self.offset_s) / self.period_s) + 1
        else:
            count = math.ceil((now.timestamp() - self.offset_s) / self.period_s)
        return datetime.fromtimestamp(count * self.period_s + self.offset_s, UTC)

    def __str__(self) -> str:
        return f"every {self.period_s:g} s"


def trigger(schedule: Schedule) -> BaseTrigger:
    """Make the trigger of a schedule. Raises ValueError for a cron expression that is none."""
    if schedule.cron is not None:
        return _Shifted(cron.trigger(schedule.cron, schedule.timezone), schedule.offset)
    return Aligned(schedule.period_s, schedule.offset)


def longest_s(trigger: BaseTrigger, instants: Sequence[datetime]) -> float:
    """Give the longest time from one of these instants to the next, and to the one that a trigger lets follow.

    A cron schedule may have pauses, over a weekend for instance: near one, nobody is late who is not late by it.
    """
    follows = trigger.get_next_fire_time(instants[-1], instants[-1])
    known = [*instants, *([follows] if follows is not None else [])]
    return max(((later - before).total_seconds() for before, later in pairwise(known)), default=0.0)


class Clock:
    """Calls `due(missed)` at every scheduled instant; `missed` counts instants that passed unnoticed before it."""

    def __init__(self, schedule: Schedule, due: Callable[[int], None]) -> None:
        """Be ready to start; nothing fires before that."""
        self._due = due
        self._trigger = trigger(schedule)
        self._expected: datetime | None = None
        self._passed: deque[datetime] = deque(maxlen=_REMEMBERED)
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._job: Job | None = None

    def start(self) -> None:
        """Begin to fire, on the running event loop."""
        self._job = self._scheduler.add_job(
            self._fire, self._trigger, id="tick", misfire_grace_time=None, coalesce=True, max_instances=1
        )
        self._scheduler.start()
        self._begin(self._job)

    def stop(self) -> None:
        """Fire no more."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def change(self, schedule: Schedule) -> None:
        """Follow another schedule from now on."""
        self._trigger = trigger(schedule)
        if self._job is not None:
            self._job.reschedule(self._trigger)
            self._begin(self._job)

    @property
    def next_at(self) -> float | None:
        """Say when the next tick is due, in Unix seconds; None before the start."""
        return self._expected.timestamp() if self._expected is not None else None

    @property
    def interval_s(self) -> float:
        """Give how long it may be from one tick to the next around now, in seconds."""
        expected = self._expected or self._trigger.get_next_fire_time(None, datetime.now(UTC))
        return longest_s(self._trigger, [*self._passed, expected]) if expected is not None else 0.0

    def _begin(self, job: Job) -> None:
        """Take the schedule up from now on."""
        self._passed.clear()
        self._passed.append(datetime.now(UTC))
        self._expected = job.next_run_time

    async def _fire(self) -> None:
        now = datetime.now(UTC)
        missed = -1
        while self._expected is not None and self._expected <= now and missed < _MOST_MISSED:
            missed += 1
            self._passed.append(self._expected)
            self._expected = self._trigger.get_next_fire_time(self._expected, now)
        self._due(max(0, missed))


class _Shifted(BaseTrigger):
    """Fires a fixed time after another trigger."""

    def __init__(self, inner: BaseTrigger, shift_s: float) -> None:
        self._inner = inner
        self._shift = timedelta(seconds=shift_s)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        before = previous_fire_time - self._shift if previous_fire_time is not None else None
        found = self._inner.get_next_fire_time(before, before or now - self._shift)
        return found + self._shift if found is not None else None
