"""Run a tick when the schedule or a person asks for one, and count the ticks that were missed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from jobtester.crash_boundary import CrashBoundary
from jobtester.metrics import Metrics
from jobtester.settings.sections import ScheduleSettings
from jobtester.tick.coordinator import TickCoordinator
from jobtester.tick.schedule import Schedule

log = structlog.get_logger()


@dataclass(slots=True)
class TickScheduler:
    """Runs ticks one after the other until it is stopped."""

    coordinator: TickCoordinator
    settings: ScheduleSettings
    metrics: Metrics
    schedule: Schedule = field(init=False)
    _due: asyncio.Event = field(default_factory=asyncio.Event)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _trigger: str = "schedule"
    _crashes: CrashBoundary = field(init=False)

    def __post_init__(self) -> None:
        self._crashes = CrashBoundary(self.metrics.count_internal_error)
        self.schedule = Schedule(self.settings, self._on_due, self._export_schedule)
        self._export_schedule()

    async def run(self) -> None:
        """Run ticks as they fall due; return after stop(), when the running one has ended."""
        self.schedule.start()
        self._export_schedule()
        if self.settings.run_at_start:
            self.request_tick("start")
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            while not self._stop.is_set():
                due = asyncio.ensure_future(self._due.wait())
                await asyncio.wait({due, stopped}, return_when=asyncio.FIRST_COMPLETED)
                due.cancel()
                if self._stop.is_set():
                    break
                with self._crashes.unit("tick"):
                    await self.coordinator.run_tick(self._trigger)
                self._due.clear()  # not before: until then a tick is about to run, or runs
        finally:
            stopped.cancel()
            self.schedule.stop()

    def request_tick(self, trigger: str) -> bool:
        """Ask for a tick now; return False if one runs or is about to."""
        if self.coordinator.is_running or self._due.is_set() or self._stop.is_set():
            return False
        self._trigger = trigger
        self._due.set()
        return True

    def reconfigure(self, settings: ScheduleSettings) -> None:
        """Follow another schedule from now on; a running tick is not touched."""
        self.settings = settings
        self.schedule.reconfigure(settings)
        self._export_schedule()

    def stop(self) -> None:
        """Start no more ticks and let no further job begin."""
        self._stop.set()
        self.schedule.stop()
        self.coordinator.stop()

    def _export_schedule(self) -> None:
        """Export when the next tick is due, and the longest time between ticks."""
        self.metrics.tick_interval.set(self.schedule.interval_s)
        self.metrics.tick_due.set(self.schedule.next_at or 0)

    def _on_due(self, missed: int) -> None:
        with self._crashes.unit("clock"):
            self._export_schedule()
        if not self.request_tick("schedule"):
            missed += 1
        if missed:
            self.metrics.ticks_missed.inc(missed)
            log.warning("ticks_missed", count=missed, running=self.coordinator.is_running)
