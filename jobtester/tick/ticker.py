"""The ticker: starts a tick when the clock or a person says so, and counts what it had to miss."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from jobtester.crashes import CrashBoundary
from jobtester.metrics import Metrics
from jobtester.settings import Schedule
from jobtester.tick.clock import Clock
from jobtester.tick.conductor import Conductor

log = structlog.get_logger()


@dataclass(slots=True)
class Ticker:
    """Runs ticks one after the other until it is stopped."""

    conductor: Conductor
    schedule: Schedule
    metrics: Metrics
    clock: Clock = field(init=False)
    _due: asyncio.Event = field(default_factory=asyncio.Event)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _trigger: str = "schedule"
    _crashes: CrashBoundary = field(init=False)

    def __post_init__(self) -> None:
        """Set the clock; it runs from run() on."""
        self._crashes = CrashBoundary(self.metrics.count_internal_error)
        self.clock = Clock(self.schedule, self._fired, self._tell)
        self._tell()

    async def run(self) -> None:
        """Run ticks as they fall due; return after stop(), when the running one has ended."""
        self.clock.start()
        self._tell()
        if self.schedule.run_at_start:
            self.start("start")
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            while not self._stop.is_set():
                due = asyncio.ensure_future(self._due.wait())
                await asyncio.wait({due, stopped}, return_when=asyncio.FIRST_COMPLETED)
                due.cancel()
                if self._stop.is_set():
                    break
                with self._crashes.unit("tick"):
                    await self.conductor.tick(self._trigger)
                self._due.clear()  # not before: till then a tick is about to run, or runs
        finally:
            stopped.cancel()
            self.clock.stop()

    def start(self, trigger: str) -> bool:
        """Ask for a tick now; False if one runs or is about to."""
        if self.conductor.running or self._due.is_set() or self._stop.is_set():
            return False
        self._trigger = trigger
        self._due.set()
        return True

    def change(self, schedule: Schedule) -> None:
        """Follow another schedule from now on; a running tick is not touched."""
        self.schedule = schedule
        self.clock.change(schedule)
        self._tell()

    def stop(self) -> None:
        """Start no more ticks and let no further job begin."""
        self._stop.set()
        self.clock.stop()
        self.conductor.stop()

    def _tell(self) -> None:
        """Let Prometheus know when the next tick is due, and how long it may at most be until a tick."""
        self.metrics.tick_interval.set(self.clock.interval_s)
        self.metrics.tick_due.set(self.clock.next_at or 0)

    def _fired(self, missed: int) -> None:
        with self._crashes.unit("clock"):
            self._tell()
        if not self.start("schedule"):
            missed += 1
        if missed:
            self.metrics.ticks_missed.inc(missed)
            log.warning("ticks_missed", count=missed, running=self.conductor.running)
