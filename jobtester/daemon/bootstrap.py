"""Build a tester from its configuration, and close everything in order at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from jobtester.checks.chat import TOKEN_LIMIT
from jobtester.checks.checker import AnswerChecker
from jobtester.configuration import Configuration
from jobtester.crash_boundary import CrashBoundary
from jobtester.daemon.change_observer import ChangeObserver
from jobtester.daemon.config_watcher import ConfigWatcher
from jobtester.daemon.daemon import Daemon
from jobtester.daemon.incoming import ExternalResultReceiver, GatewayEventQueue
from jobtester.daemon.notifier import Notifier
from jobtester.daemon.reconfiguration import (
    ConfigurationInForce,
    Reconfiguration,
    make_live_video,
    open_gateway,
    open_live_runner,
    stop_sessions_left_over,
)
from jobtester.daemon.runtime import collect_garbage
from jobtester.daemon.supervisor import report_loop_errors
from jobtester.domain.orchestrators import CapabilityKey
from jobtester.domain.plan import Selection
from jobtester.domain.tick_report import TickReport
from jobtester.errors import PortInUseError, StoreError
from jobtester.health import HealthMonitor
from jobtester.leaderboard.client import LeaderboardClient
from jobtester.leaderboard.delivery import Delivery
from jobtester.leaderboard.options import DeliveryOptions
from jobtester.metrics import Metrics
from jobtester.pipelines.catalogue import streaming_pipelines
from jobtester.settings.model import Settings
from jobtester.store.database import Database
from jobtester.store.full_results import FullResults
from jobtester.store.history import History
from jobtester.store.live_runners import LiveRunners
from jobtester.store.outbox import Outbox
from jobtester.store.queries import Queries
from jobtester.store.results import Results
from jobtester.store.runner_sessions import RunnerSessions
from jobtester.store.skips import Skips
from jobtester.store.ticks import Ticks
from jobtester.tick.coordinator import TickCoordinator
from jobtester.tick.planner import TickInputs, TickPlanner
from jobtester.tick.progress import TickObserver
from jobtester.tick.scheduler import TickScheduler
from jobtester.web.app import build_app, listen
from jobtester.web.context import Stores, WebContext


@asynccontextmanager
async def open_daemon(
    configuration: Configuration,
    *,
    owner: bool = True,
    post: bool = True,
    observers: tuple[TickObserver, ...] = (),
    selection: Selection | None = None,
    port: int | None = None,
    watch_config: bool = False,
) -> AsyncIterator[Daemon]:
    """Build and open every component, listen, and close all in reverse order at the end.

    `post` False records results without posting them. `owner` False only looks: beside a running daemon it takes any
    free port and leaves alone what that daemon has in flight. `watch_config` reloads the file when it changes.
    Raises PortInUseError, StoreError.
    """
    settings = configuration.settings
    in_force = ConfigurationInForce(configuration)
    async with AsyncExitStack() as stack:
        metrics = Metrics(lambda: in_force.settings.region)
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
        journal = RunnerSessions(database)
        is_posting = post and settings.leaderboard.post and settings.leaderboard.url is not None
        delivery = _make_delivery(settings, outbox, crashes) if is_posting else None
        if delivery is not None:
            await delivery.open()
            stack.push_async_callback(delivery.close)
        gateways = [await open_gateway(gateway_settings) for gateway_settings in settings.gateways]
        for gateway in gateways:
            metrics.gateway_up.labels(gateway.name).set(float("nan"))  # not asked yet: neither up nor down
        checker = AnswerChecker()
        stack.push_async_callback(checker.close)
        notifier = Notifier(lambda: in_force.settings.notify, crashes=crashes) if owner else None

        async def prepare_tick() -> None:
            await reconfiguration.apply_pending()
            # Also for a tick without jobs for live runners, whose orchestrators may be back.
            live_runner = coordinator.planner.inputs.live_runner
            await stop_sessions_left_over(live_runner, in_force.settings.live_runner, journal, metrics)

        changes = ChangeObserver(lambda: in_force.settings, metrics, notifier)
        if owner:
            await _restore_changes(changes, Queries(database))

        def finish_tick(report: TickReport) -> None:
            changes.finish(report)
            if notifier is not None:
                collect_garbage()  # now, while no job is being timed

        live_runner = await open_live_runner(settings.live_runner, journal, metrics)
        live_video = make_live_video(settings.live_video, metrics)
        inputs = TickInputs(settings, configuration.catalogue, configuration.assets, gateways, live_runner, live_video)
        planner = TickPlanner(inputs, results, LiveRunners(database), Skips(database), selection or Selection())
        coordinator = TickCoordinator(
            planner, checker, ticks, results, metrics,
            on_recorded=delivery.wake if delivery is not None else lambda: None,
            is_posting=is_posting,
            observers=(*observers, changes),
            before_tick=prepare_tick,
            on_tick_finished=finish_tick,
        )  # fmt: skip
        stack.push_async_callback(_close_gateways, coordinator)
        if owner:
            await stop_sessions_left_over(live_runner, settings.live_runner, journal, metrics)
        with contextlib.suppress(StoreError):  # then the limits are learned again
            planner.token_limits.restore(await results.requests_with_note("tester_fault", TOKEN_LIMIT))
        scheduler = TickScheduler(coordinator, settings.schedule, metrics)
        reconfiguration = Reconfiguration(in_force, coordinator, scheduler, delivery, journal)
        watcher = ConfigWatcher(configuration, reconfiguration.request, metrics) if watch_config else None

        def config_problem() -> str:
            return watcher.problem if watcher is not None else ""

        health = HealthMonitor(
            coordinator, scheduler, database, outbox, delivery, metrics, config_problem=config_problem
        )
        events = GatewayEventQueue(coordinator, metrics)
        context = WebContext(
            settings=lambda: in_force.settings,
            assets=lambda: in_force.current.assets,
            gateways=lambda: coordinator.gateways,
            metrics=metrics,
            health=health,
            stores=Stores(
                ticks,
                outbox,
                Queries(database),
                FullResults(database),
                LiveRunners(database),
                Skips(database),
                History(database),
            ),
            progress=lambda: coordinator.progress,
            next_tick_at=lambda: scheduler.schedule.next_at,
            start_tick=scheduler.request_tick,
            simulated=configuration.simulated,
            enqueue_event=events.enqueue,
            receive_results=ExternalResultReceiver(results, delivery).receive if delivery is not None else None,
        )
        host, wanted_port = settings.server.host, settings.server.port if port is None else port
        try:
            runner, actual_port = await listen(build_app(context), host, wanted_port)
        except PortInUseError:
            if owner:
                raise
            runner, actual_port = await listen(build_app(context), host, 0)
        stack.push_async_callback(runner.cleanup)
        yield Daemon(
            configuration=in_force,
            database=database,
            outbox=outbox,
            coordinator=coordinator,
            scheduler=scheduler,
            delivery=delivery,
            health=health,
            events=events,
            notifier=notifier,
            config_watcher=watcher,
            port=actual_port,
        )


async def _restore_changes(changes: ChangeObserver, queries: Queries) -> None:
    """Begin with what the store holds, so that the first tick reports only what is new."""
    with contextlib.suppress(StoreError):  # then the first tick reports everything that fails
        changes.tracker.restore(
            (CapabilityKey(row.orchestrator, row.service_uri, row.pipeline, row.model, row.kind), row.newest.outcome)
            for row in await queries.matrix(recent=1)
        )


def _make_delivery(settings: Settings, outbox: Outbox, crashes: CrashBoundary) -> Delivery:
    url, secret = settings.leaderboard.url, settings.leaderboard.secret
    assert url is not None
    assert secret is not None
    client = LeaderboardClient(url, secret.get_secret_value())
    return Delivery.create(outbox, client, DeliveryOptions.from_settings(settings, url), crashes=crashes)


async def _close_gateways(coordinator: TickCoordinator) -> None:
    """Close the gateways of the end, which a reload may have replaced."""
    for gateway in coordinator.gateways:
        await gateway.client.close()
    live_runner = coordinator.planner.inputs.live_runner
    if live_runner is not None:
        await live_runner.close()
