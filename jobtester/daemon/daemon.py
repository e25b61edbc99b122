"""The running tester: runs its components, and stops them in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from jobtester import __version__
from jobtester.crash_boundary import CrashBoundary
from jobtester.daemon.config_watcher import ConfigWatcher
from jobtester.daemon.incoming import GatewayEventQueue
from jobtester.daemon.notifier import Notifier
from jobtester.daemon.reconfiguration import ConfigurationInForce
from jobtester.daemon.runtime import configure_runtime
from jobtester.daemon.supervisor import Signals, retry_on_store_error, run_component
from jobtester.domain.tick_report import TickReport
from jobtester.errors import JobTesterError, StoreError
from jobtester.health import HealthMonitor
from jobtester.leaderboard.delivery import Delivery
from jobtester.store.database import Database
from jobtester.store.outbox import Outbox
from jobtester.store.retention import Retention
from jobtester.tick.coordinator import TickCoordinator
from jobtester.tick.scheduler import TickScheduler

log = structlog.get_logger()

_DRAIN_S = 10.0
_CLEANUP_INTERVAL_S = 3600.0


@dataclass(slots=True)
class Daemon:
    """One tester whose components are built, open and listening; `port` is the one that it got."""

    configuration: ConfigurationInForce
    database: Database
    outbox: Outbox
    coordinator: TickCoordinator
    scheduler: TickScheduler
    delivery: Delivery | None
    health: HealthMonitor
    events: GatewayEventQueue
    notifier: Notifier | None
    config_watcher: ConfigWatcher | None
    port: int
    _stop_requested: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        """Run until stop() or a signal. Raises JobTesterError if a component crashes."""
        configure_runtime()
        with Signals(self._stop_requested, self.config_watcher.request_reload if self.config_watcher else None):
            configuration = self.configuration.current
            log.info(
                "serving",
                version=__version__,
                port=self.port,
                config=configuration.origin,
                region=configuration.settings.region,
            )
            await self._supervise(self._run_until_stopped(self.scheduler.run()))

    async def run_once(self, trigger: str) -> TickReport:
        """Run one tick, deliver its results, and return its report. A first signal ends the tick early."""
        tick = asyncio.ensure_future(self.coordinator.run_tick(trigger))
        with Signals(self._stop_requested):
            await self._supervise(self._run_until_stopped(tick))
        return tick.result()

    def stop(self) -> None:
        """Begin to stop: running jobs get their grace period, then results are delivered."""
        self._stop_requested.set()

    @property
    def is_stopping(self) -> bool:
        """Return True after stop() or a signal."""
        return self._stop_requested.is_set()

    async def _run_until_stopped(self, ticks: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> None:
        """Wait for ticks to end; when asked to stop, give running jobs their grace period, then abort them."""
        running = asyncio.ensure_future(ticks)
        stopped = asyncio.ensure_future(self._stop_requested.wait())
        try:
            await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                grace_s = self.configuration.settings.limits.grace
                log.info("stopping", grace_s=grace_s)
                self.scheduler.stop()
                await asyncio.wait({running}, timeout=grace_s)
                # Aborted jobs still have to be recorded, which may wait for the store: hence again and again.
                while not running.done():
                    self.coordinator.abort()
                    await asyncio.wait({running}, timeout=1.0)
            running.result()
        finally:
            stopped.cancel()
            if not running.done():
                running.cancel()
                await asyncio.wait({running})

    async def _supervise(self, ticks: Coroutine[Any, Any, None]) -> None:
        """Run ticks beside the other components; when ticks end, the others end; when one crashes, all end."""
        drained = asyncio.Event()

        async def run_ticks() -> None:
            try:
                await ticks
            finally:
                # Delivery goes on until the last tick's results have had their chance, and only then ends by itself;
                # what else runs in the background may be canceled at any moment.
                await self._drain_delivery()
                drained.set()
                for task in background_tasks:
                    task.cancel()

        background: dict[str, Coroutine[Any, Any, None]] = {
            "events": retry_on_store_error("events", self.events.run),
            "cleanup": retry_on_store_error("cleanup", self._clean_up),
            "health": retry_on_store_error("health", self.health.run),
        }
        if self.notifier is not None:
            background["notification"] = self.notifier.run()
        if self.config_watcher is not None:
            background["configuration"] = self.config_watcher.run()
        background_tasks: list[asyncio.Task[None]] = []
        errors: list[Exception] = []
        running = self.health.components
        try:
            async with asyncio.TaskGroup() as group:
                if self.delivery is not None:
                    group.create_task(run_component("delivery", self.delivery.run(drained), running), name="delivery")
                background_tasks += [
                    group.create_task(run_component(name, component, running), name=name)
                    for name, component in background.items()
                ]
                group.create_task(run_component("ticks", run_ticks(), running), name="ticks")
        except* JobTesterError as group_of_errors:
            errors += group_of_errors.exceptions
        finally:
            running.clear()
        if errors:  # raised here and not above, where Python before 3.11.4 would make a group of it
            raise errors[0]

    async def _drain_delivery(self) -> None:
        """Post what is due for a limited time; the rest stays in the outbox for the next start."""
        if self.delivery is None:
            return
        try:
            async with asyncio.timeout(_DRAIN_S):
                with CrashBoundary(self.coordinator.metrics.count_internal_error).unit("delivery"):
                    await self.delivery.drain()
        except TimeoutError:
            counts = await self.outbox.counts()
            log.info("outbox_not_drained", **{state: count for state, count in counts.items() if count})

    async def _clean_up(self) -> None:
        retention = Retention(self.database)
        while True:
            with CrashBoundary(self.coordinator.metrics.count_internal_error).unit("cleanup", expected=(StoreError,)):
                store = self.configuration.settings.store
                max_files_size = store.max_files_size if store.keep_files else 0
                await retention.run(keep_s=store.keep, now=time.time(), max_files_size=max_files_size)
            await asyncio.sleep(_CLEANUP_INTERVAL_S)
