"""The daemon: builds the parts from the settings, watches over them, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from jobtester import __version__
from jobtester.checks.chat import TOKEN_LIMIT
from jobtester.checks.checker import AnswerChecker
from jobtester.configuration import Configuration
from jobtester.daemon.config_watcher import ConfigWatcher
from jobtester.daemon.notifier import Notifier
from jobtester.daemon.runtime import collect_garbage, configure_runtime
from jobtester.daemon.supervisor import Signals, report_loop_errors, retry_on_store_error, run_component
from jobtester.domain.external_results import ExternalResult, InvalidStatError
from jobtester.domain.plan import Selection
from jobtester.domain.tick_report import TickReport
from jobtester.errors import CrashBoundary, JobTesterError, PortInUseError, StoreError
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.gateway_events import JobCompletedEvent
from jobtester.health import HealthMonitor
from jobtester.leaderboard.delivery import Delivery
from jobtester.metrics import Metrics
from jobtester.pipelines.catalogue import streaming_pipelines
from jobtester.settings.model import Settings
from jobtester.settings.sections import GatewaySettings
from jobtester.store.database import Database
from jobtester.store.outbox import Outbox
from jobtester.store.queries import Queries
from jobtester.store.results import Results
from jobtester.store.retention import Retention
from jobtester.store.ticks import Ticks
from jobtester.tick.coordinator import TickCoordinator
from jobtester.tick.ports import TickObserver
from jobtester.tick.scheduler import TickScheduler
from jobtester.web.app import listen, make_app
from jobtester.web.context import WebContext

log = structlog.get_logger()

_FLUSH_S = 10.0
_CLEAN_EVERY_S = 3600.0


@dataclass(slots=True)
class Daemon:
    """All parts of one running tester, open and ready."""

    configuration: Configuration
    metrics: Metrics
    database: Database
    results: Results
    outbox: Outbox
    coordinator: TickCoordinator
    scheduler: TickScheduler
    delivery: Delivery | None
    health: HealthMonitor
    port: int
    notifier: Notifier | None = None
    config_watcher: ConfigWatcher | None = None
    _next: Configuration | None = None
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _events: asyncio.Queue[tuple[Gateway, JobCompletedEvent]] = field(default_factory=lambda: asyncio.Queue(10_000))
    _asked_to_stop: asyncio.Event = field(default_factory=asyncio.Event)
    _stopped_ticks: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        """Run until stop() or a signal; raise JobTesterError if a part dies."""
        configure_runtime()
        with Signals(
            self._asked_to_stop, self.config_watcher.request_reload if self.config_watcher is not None else None
        ):
            loaded = self.configuration
            log.info(
                "serving", version=__version__, port=self.port, config=loaded.origin, region=loaded.settings.region
            )
            await self._supervise(self._ticks())

    async def run_once(self, trigger: str) -> TickReport:
        """Run one tick, deliver what came of it, and give the report; a first signal ends it early but in order."""
        box: list[TickReport] = []

        async def one() -> None:
            tick = asyncio.ensure_future(self.coordinator.run_tick(trigger))
            await self._until_done(tick)
            box.append(tick.result())

        with Signals(self._asked_to_stop):
            await self._supervise(one())
        return box[0]

    def finish_tick(self, report: TickReport) -> None:
        """Send the report to whoever wants it, and collect garbage now, while no job is being timed."""
        if self.notifier is not None:
            self.notifier.enqueue(report)
        collect_garbage()

    def stop(self) -> None:
        """Begin to stop, in order."""
        self._asked_to_stop.set()

    @property
    def stopping(self) -> bool:
        """Tell whether it has been asked to stop."""
        return self._asked_to_stop.is_set()

    @property
    def queued_events(self) -> int:
        """Count the events that wait to be weighed."""
        return self._events.qsize()

    def enqueue_event(self, gateway: Gateway, event: JobCompletedEvent) -> None:
        """Take an event of a gateway's sink without waiting; when too many come at once, some are lost."""
        try:
            self._events.put_nowait((gateway, event))
        except asyncio.QueueFull:
            self.metrics.events.labels("ignored").inc()

    async def receive_results(self, body: bytes, source: str, found: list[ExternalResult]) -> bool:
        """Keep other testers' results and forward them; False for a repeat.

        Raises InvalidStatError for an unknown region.
        """
        if self.delivery is not None and any(
            self.delivery.region_check.is_known_missing(one.stat.region) for one in found
        ):
            raise InvalidStatError("invalid region")
        new = await self.results.record_external(body, source, found)
        if new and self.delivery is not None:
            self.delivery.wake()
        return new

    async def reconfigure(self, changed: Configuration) -> None:
        """Let a changed configuration come into force: schedule and log at once, the rest between ticks."""
        changed.apply_log_settings(show_warnings=False)
        if changed.settings.schedule != self.scheduler.settings:
            self.scheduler.reconfigure(changed.settings.schedule)
        self._next = changed
        if not self.coordinator.is_running:
            await self.apply_changes()

    async def apply_changes(self) -> None:
        """Take over a changed configuration while no job runs: gateways whose tables are the same stay as they are."""
        async with self._changing:
            changed, self._next = self._next, None
            if changed is None:
                return
            before = self.coordinator.gateways
            after = [_kept(before, one) or await _open_gateway(one) for one in changed.settings.gateways]
            self.configuration = changed
            self.coordinator.reconfigure(changed.settings, changed.catalogue, changed.assets, after)
            if self.delivery is not None:
                how = changed.settings.delivery
                self.delivery.reconfigure(
                    region=changed.settings.region,
                    uncertain=how.uncertain,
                    max_age_s=how.max_age,
                    parallel=how.parallel,
                    miss_after_s=how.miss_after,
                    audit_per_tick=how.audit,
                )
            for gateway in before:
                if gateway not in after:
                    await gateway.client.close()

    async def _ticks(self) -> None:
        """Run the ticker until it is time to stop, then let the running tick end."""
        running = asyncio.ensure_future(self.scheduler.run())
        await self._until_done(running)

    async def _until_done(self, running: asyncio.Future[Any]) -> None:
        """Wait for ticks to end; when asked to stop, allow running jobs their grace, then end them."""
        asked = asyncio.ensure_future(self._asked_to_stop.wait())
        try:
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                log.info("stopping", grace_s=self.configuration.settings.limits.grace)
                self.scheduler.stop()
                await asyncio.wait({running}, timeout=self.configuration.settings.limits.grace)
                while not running.done():
                    self.coordinator.abort()
                    await asyncio.wait({running}, timeout=1.0)
            running.result()
        finally:
            asked.cancel()
            if not running.done():
                running.cancel()
                await asyncio.wait({running})

    async def _supervise(self, main: Coroutine[Any, Any, None]) -> None:
        """Run the main part beside the others; when it ends, the others end in order; when one dies, all do."""
        delivered = asyncio.Event()

        async def first() -> None:
            try:
                await main
            finally:
                self._stopped_ticks.set()
                if self.delivery is not None:
                    await self._flush()
                delivered.set()
                for task in others:
                    task.cancel()

        others: list[asyncio.Task[None]] = []
        died: list[Exception] = []
        running = self.health.parts
        try:
            async with asyncio.TaskGroup() as group:
                parts: dict[str, Coroutine[Any, Any, None]] = {
                    "events": retry_on_store_error("events", self._weigh_events),
                    "cleanup": retry_on_store_error("cleanup", self._clean),
                    "vitals": retry_on_store_error("vitals", self.health.run),
                }
                if self.notifier is not None:
                    parts["notification"] = self.notifier.run()
                if self.config_watcher is not None:
                    parts["configuration"] = self.config_watcher.run()
                if self.delivery is not None:
                    delivering = self.delivery.run(delivered)
                    group.create_task(run_component("delivery", delivering, running), name="delivery")
                others += [
                    group.create_task(run_component(name, part, running), name=name) for name, part in parts.items()
                ]
                group.create_task(run_component("ticks", first(), running), name="ticks")
        except* JobTesterError as errors:
            died += errors.exceptions
        finally:
            running.clear()
        if died:  # raised here and not above, where Python before 3.11.4 would make a group of it
            raise died[0]

    async def _flush(self) -> None:
        """Give delivery a short time to post what is due; the rest stays in the outbox."""
        assert self.delivery is not None
        try:
            async with asyncio.timeout(_FLUSH_S):
                with CrashBoundary(self.metrics.count_internal_error).unit("delivery"):
                    await self.delivery.drain()
        except TimeoutError:
            log.info(
                "left_in_outbox", **{state: count for state, count in (await self.outbox.counts()).items() if count}
            )

    async def _weigh_events(self) -> None:
        while True:
            gateway, event = await self._events.get()
            with CrashBoundary(self.metrics.count_internal_error).unit("event", expected=(StoreError,)):
                await self.coordinator.weigh_late_event(gateway, event)
            await asyncio.sleep(0)  # there may be thousands

    async def _clean(self) -> None:
        cleanup = Retention(self.database)
        while True:
            with CrashBoundary(self.metrics.count_internal_error).unit("cleanup", expected=(StoreError,)):
                await cleanup.run(keep_s=self.configuration.settings.store.keep, now=time.time())
            await asyncio.sleep(_CLEAN_EVERY_S)


@asynccontextmanager
async def open_daemon(
    configuration: Configuration,
    *,
    owner: bool = True,
    post: bool = True,
    watchers: tuple[TickObserver, ...] = (),
    selection: Selection | None = None,
    port: int | None = None,
    follow: bool = False,
) -> AsyncIterator[Daemon]:
    """Open every part, listen, and close all in order at the end.

    `post` False records results without posting them. `owner` False looks on only: beside a running daemon it takes
    any free port and leaves alone what that daemon has under way. `follow` keeps up with its file.
    Raises PortInUseError, StoreError.
    """
    settings = configuration.settings
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        metrics.start_series(configuration.catalogue, streaming_pipelines(configuration.catalogue))
        crashes = CrashBoundary(metrics.count_internal_error)
        stack.callback(report_loop_errors(crashes))
        database = Database(Path(settings.store.path), crashes=crashes)
        await database.open(owner=owner)
        stack.push_async_callback(database.close)
        results, outbox, ticks = Results(database), Outbox(database), Ticks(database)
        if owner:
            await ticks.abandon_unfinished(time.time())
            await outbox.recover(hold=not settings.leaderboard.post_suspect)
        posting = post and settings.leaderboard.post and settings.leaderboard.url is not None
        delivery = _delivery(settings, outbox, crashes) if posting else None
        if delivery is not None:
            await delivery.open()
            stack.push_async_callback(delivery.close)
        found = [await _open_gateway(one) for one in settings.gateways]
        for gateway in found:
            metrics.gateway_up.labels(gateway.name).set(float("nan"))  # not asked yet, which is neither up nor down
        examiner = AnswerChecker()
        stack.push_async_callback(examiner.close)
        conductor = TickCoordinator(
            settings, configuration.catalogue, configuration.assets, found, examiner, ticks, results, metrics,
            on_recorded=delivery.wake if delivery is not None else _nothing,
            is_posting=posting,
            observers=watchers,
            selection=selection or Selection(),
        )  # fmt: skip
        stack.push_async_callback(_close_gateways, conductor)
        with contextlib.suppress(StoreError):  # then the limits are learned anew
            conductor.token_limits.restore(await results.requests_with_note("tester_fault", TOKEN_LIMIT))
        ticker = TickScheduler(conductor, settings.schedule, metrics)
        vitals = HealthMonitor(conductor, ticker, database, outbox, delivery, metrics)
        daemon = Daemon(configuration, metrics, database, results, outbox, conductor, ticker, delivery, vitals, 0)
        conductor.before_tick = daemon.apply_changes
        if owner:
            daemon.notifier = Notifier(lambda: conductor.settings.notify, crashes=crashes)
            conductor.on_tick_finished = daemon.finish_tick
        if follow:
            daemon.config_watcher = ConfigWatcher(configuration, daemon.reconfigure, metrics)
            vitals.refused_edit = lambda: daemon.config_watcher.problem if daemon.config_watcher is not None else ""
        parts = WebContext(
            settings=lambda: conductor.settings,
            gateways=lambda: conductor.gateways,
            metrics=metrics,
            health=vitals,
            results=results,
            ticks=ticks,
            outbox=outbox,
            queries=Queries(database),
            progress=lambda: conductor.progress,
            next_tick_at=lambda: ticker.schedule.next_at,
            start_tick=ticker.request_tick,
            simulated=configuration.simulated,
            refresh_metrics=vitals.refresh_metrics,
            enqueue_event=daemon.enqueue_event,
            receive_results=daemon.receive_results if delivery is not None else None,
            refused_edit=lambda: vitals.refused_edit(),
        )
        wanted = settings.server.port if port is None else port
        try:
            runner, daemon.port = await listen(make_app(parts), settings.server.host, wanted)
        except PortInUseError:
            if owner:
                raise
            runner, daemon.port = await listen(make_app(parts), settings.server.host, 0)
        stack.push_async_callback(runner.cleanup)
        yield daemon


def _delivery(settings: Settings, outbox: Outbox, crashes: CrashBoundary) -> Delivery:
    board, how = settings.leaderboard, settings.delivery
    assert board.url is not None
    assert board.secret is not None
    return Delivery(
        outbox,
        url=board.url,
        secret=board.secret.get_secret_value(),
        region=settings.region,
        uncertain=how.uncertain,
        max_age_s=how.max_age,
        parallel=how.parallel,
        miss_after_s=how.miss_after,
        audit_per_tick=how.audit,
        crashes=crashes,
    )


async def _open_gateway(settings: GatewaySettings) -> Gateway:
    gateway = Gateway.from_settings(settings)
    await gateway.client.open()
    return gateway


def _kept(before: Sequence[Gateway], settings: GatewaySettings) -> Gateway | None:
    return next((gateway for gateway in before if gateway.settings == settings), None)


async def _close_gateways(conductor: TickCoordinator) -> None:
    for gateway in conductor.gateways:
        await gateway.client.close()


def _nothing() -> None:
    """Do nothing: there is no delivery to wake."""
