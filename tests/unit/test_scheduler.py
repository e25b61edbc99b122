"""When ticks begin, and which are counted as missed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from jobtester.metrics import Metrics
from jobtester.settings.sections import ScheduleSettings
from jobtester.tick.coordinator import TickCoordinator
from jobtester.tick.scheduler import TickScheduler


@dataclass
class Ticks:
    """Runs ticks that end when `release` is set."""

    triggers: list[str] = field(default_factory=list)
    is_running: bool = False
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    was_stopped: bool = False

    async def run_tick(self, trigger: str) -> None:
        """Run until released."""
        self.triggers.append(trigger)
        self.is_running = True
        self.has_begun.set()
        await self.release.wait()
        self.is_running = False

    def stop(self) -> None:
        """End the running tick."""
        self.was_stopped = True
        self.release.set()


def make_scheduler(ticks: Ticks, **settings: Any) -> TickScheduler:
    """Return a scheduler whose schedule is due in an hour."""
    schedule = ScheduleSettings(**{"interval": "2h", "offset": "0s", **settings})
    return TickScheduler(cast("TickCoordinator", ticks), schedule, Metrics())


def count_missed(scheduler: TickScheduler) -> float:
    """Return how many ticks were counted as missed."""
    return float(scheduler.metrics.ticks_missed._value.get())


async def test_one_tick_at_a_time() -> None:
    """Another one is refused while a tick runs, and from the moment it is asked for."""
    ticks = Ticks()
    scheduler = make_scheduler(ticks, run_at_start=False)
    assert scheduler.request_tick("api")
    assert not scheduler.request_tick("api"), "one is about to begin"
    running = asyncio.create_task(scheduler.run())
    await asyncio.wait_for(ticks.has_begun.wait(), 30)
    assert not scheduler.request_tick("api"), "one runs"
    scheduler.stop()
    await asyncio.wait_for(running, 30)
    assert (ticks.triggers, ticks.was_stopped) == (["api"], True)
    assert not scheduler.request_tick("api"), "it has stopped"


async def test_a_tick_at_the_start() -> None:
    """As configured."""
    ticks = Ticks()
    scheduler = make_scheduler(ticks, run_at_start=True)
    running = asyncio.create_task(scheduler.run())
    await asyncio.wait_for(ticks.has_begun.wait(), 30)
    scheduler.stop()
    await asyncio.wait_for(running, 30)
    assert ticks.triggers == ["start"]


async def test_what_cannot_begin_is_missed() -> None:
    """An instant that falls into a running tick, and those that passed while the machine slept."""
    ticks = Ticks(is_running=True)
    scheduler = make_scheduler(ticks, run_at_start=False)
    scheduler._on_due(0)
    assert count_missed(scheduler) == 1
    ticks.is_running = False
    scheduler._on_due(2)
    assert count_missed(scheduler) == 3
    assert not scheduler.request_tick("api"), "the scheduled one is about to begin"


async def test_the_schedule_is_exported() -> None:
    """The longest time between ticks, and another one after a reload."""
    scheduler = make_scheduler(Ticks(), run_at_start=False)
    assert scheduler.metrics.tick_interval._value.get() == 7200
    scheduler.reconfigure(ScheduleSettings(interval="10m"))
    assert scheduler.metrics.tick_interval._value.get() == 600
