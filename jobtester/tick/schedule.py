"""Report when a tick is due. APScheduler serves only as a clock: ticks run elsewhere."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import structlog
from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from jobtester.settings.cron import CronSchedule
from jobtester.settings.sections import ScheduleSettings

log = structlog.get_logger()

_MAX_MISSED = 10_000
_MAX_PAST = 3  # instants that the longest interval is measured on
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)
_WATCH_EVERY_S = 2.0
_MIN_SET_BACK = timedelta(minutes=1)


class RecurringTrigger(BaseTrigger):
    """A trigger whose instants follow from the wall clock alone: strictly increasing, and none in the past.

    APScheduler asks for one instant after the other until one lies in the future. This answers with that one at once,
    so that a machine that slept, or a clock that was put forward, makes neither a storm of ticks nor a long search.
    """

    @abstractmethod
    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first instant of the schedule after another, in UTC; None if there is none."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the first instant after the previous one and after now; without a previous one, now itself counts."""
        if previous_fire_time is None:
            return self.next_after(now - _INSTANT)
        return self.next_after(max(previous_fire_time, now))


class IntervalTrigger(RecurringTrigger):
    """Fires at whole multiples of a period since the Unix epoch, shifted by an offset; both in seconds."""

    def __init__(self, period_s: float, offset_s: float) -> None:
        """Fire every `period_s` > 0 seconds, `offset_s` after whole multiples; both are rounded to a microsecond."""
        self._period = max(timedelta(seconds=period_s), _INSTANT)
        self._origin = _EPOCH + timedelta(seconds=offset_s)

    def next_after(self, instant: datetime) -> datetime:
        """Return the first aligned instant after another."""
        return self._origin + ((instant - self._origin) // self._period + 1) * self._period

    def __str__(self) -> str:
        return f"every {self._period}"


class CronTrigger(RecurringTrigger):
    """Fires when a cron schedule does, and an offset in seconds later."""

    def __init__(self, schedule: CronSchedule, offset_s: float) -> None:
        self._schedule = schedule
        self._offset = timedelta(seconds=offset_s)

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first instant after another."""
        following = self._schedule.next_after(instant - self._offset)
        return following + self._offset if following is not None else None

    def __str__(self) -> str:
        return self._schedule.expression


def make_trigger(schedule: ScheduleSettings) -> RecurringTrigger:
    """Return the trigger of a schedule."""
    if schedule.cron is not None:
        return CronTrigger(CronSchedule.parse(schedule.cron, schedule.timezone), schedule.offset)
    return IntervalTrigger(schedule.period_s, schedule.offset)


def longest_interval_s(trigger: BaseTrigger, instants: Sequence[datetime]) -> float:
    """Return the longest time from one of these instants to the next, and to the one that a trigger lets follow.

    A cron schedule may have pauses, over a weekend for instance. Near one, a tick is late only after that pause.
    """
    follows = trigger.get_next_fire_time(instants[-1], instants[-1])
    known = [*instants, *([follows] if follows is not None else [])]
    return max(((later - before).total_seconds() for before, later in pairwise(known)), default=0.0)


class Schedule:
    """Calls `on_due(missed)` at every scheduled instant; `missed` counts instants that passed unnoticed before it.

    `on_clock_set_back` is called when the next instant is another one because the machine's clock was set back.
    """

    def __init__(
        self,
        settings: ScheduleSettings,
        on_due: Callable[[int], None],
        on_clock_set_back: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow `settings`; nothing fires before start()."""
        self._on_due = on_due
        self._on_clock_set_back = on_clock_set_back
        self._trigger = make_trigger(settings)
        self._expected: datetime | None = None
        self._passed: deque[datetime] = deque(maxlen=_MAX_PAST)
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._job: Job | None = None
        self._checked_at = datetime.now(UTC)
        self._watch: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Fire from now on, on the running event loop."""
        self._job = self._scheduler.add_job(
            self._fire, self._trigger, id="tick", misfire_grace_time=None, coalesce=True, max_instances=1
        )
        self._scheduler.start()
        self._begin(self._job)
        self._watch_later()

    def stop(self) -> None:
        """Stop firing."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def reconfigure(self, settings: ScheduleSettings) -> None:
        """Follow another schedule from now on."""
        self._trigger = make_trigger(settings)
        if self._job is not None:
            self._job.reschedule(self._trigger)
            self._begin(self._job)

    @property
    def next_at(self) -> float | None:
        """When the next tick is due, in Unix seconds; None before the start."""
        return self._expected.timestamp() if self._expected is not None else None

    @property
    def interval_s(self) -> float:
        """The longest time from one tick to the next around now, in seconds."""
        expected = self._expected or self._trigger.get_next_fire_time(None, datetime.now(UTC))
        return longest_interval_s(self._trigger, [*self._passed, expected]) if expected is not None else 0.0

    def _begin(self, job: Job) -> None:
        """Follow the schedule from now on."""
        self._checked_at = datetime.now(UTC)
        self._passed.clear()
        self._passed.append(self._checked_at)
        self._expected = job.next_run_time

    async def _fire(self) -> None:
        now = datetime.now(UTC)
        missed = -1
        while self._expected is not None and self._expected <= now and missed < _MAX_MISSED:
            missed += 1
            self._passed.append(self._expected)
            self._expected = self._trigger.next_after(self._expected)
        if self._expected is not None and self._expected <= now:
            self._expected = self._trigger.next_after(now)
        self._on_due(max(0, missed))

    def _watch_later(self) -> None:
        self._watch = asyncio.get_running_loop().call_later(_WATCH_EVERY_S, self._check_wall_clock)

    def _check_wall_clock(self) -> None:
        """Detect a wall clock that was set, since APScheduler sleeps on a clock that nobody sets.

        Set forward, or after a sleep of the machine, the next instant may have passed: the scheduler is woken. Set
        back, it may be hours or years away: the schedule is followed from now on. A correction of less than a minute
        is ignored, so that no instant fires twice for it.
        """
        self._watch_later()
        now = datetime.now(UTC)
        if self._job is not None and now < self._checked_at - _MIN_SET_BACK:
            log.warning("clock_set_back", by_s=round((self._checked_at - now).total_seconds()))
            self._job.reschedule(self._trigger)
            self._begin(self._job)
            self._on_clock_set_back()
        self._checked_at = now
        if self._expected is not None and self._expected <= now:
            self._scheduler.wakeup()
