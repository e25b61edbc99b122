"""Bring a changed configuration into force while the daemon runs."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from jobtester.configuration import Configuration
from jobtester.crash_boundary import CrashBoundary
from jobtester.errors import StoreError
from jobtester.gateway.gateway import Gateway
from jobtester.leaderboard.delivery import Delivery
from jobtester.leaderboard.options import DeliveryOptions
from jobtester.live_runner.peer import LiveRunnerPeer
from jobtester.live_video.streams import LiveVideo
from jobtester.metrics import Metrics
from jobtester.settings.live_sections import LiveRunnerSettings, LiveVideoSettings
from jobtester.settings.model import Settings
from jobtester.settings.sections import GatewaySettings
from jobtester.store.runner_sessions import RunnerSessions
from jobtester.tick.coordinator import TickCoordinator
from jobtester.tick.planner import TickInputs
from jobtester.tick.scheduler import TickScheduler


@dataclass(slots=True)
class ConfigurationInForce:
    """Holds the configuration in force, and a newer one until no tick runs."""

    current: Configuration
    pending: Configuration | None = None

    @property
    def settings(self) -> Settings:
        """Return the settings in force."""
        return self.current.settings


@dataclass(slots=True)
class Reconfiguration:
    """Applies a changed configuration: schedule and log at once, everything else between ticks."""

    in_force: ConfigurationInForce
    coordinator: TickCoordinator
    scheduler: TickScheduler
    delivery: Delivery | None
    sessions: RunnerSessions
    _applying: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def request(self, changed: Configuration) -> None:
        """Apply what may change at once, and the rest now or, if a tick runs, before the next one."""
        changed.apply_log_settings(show_warnings=False)
        if changed.settings.schedule != self.scheduler.settings:
            self.scheduler.reconfigure(changed.settings.schedule)
        self.in_force.pending = changed
        if not self.coordinator.is_running:
            await self.apply_pending()

    async def apply_pending(self) -> None:
        """Apply the configuration that waits, if there is one. To be called while no job runs.

        A gateway whose settings are the same stays as it is: its connections, its trust and what it knows about
        orchestrators are worth more than a fresh start.
        """
        # A reload and the start of a tick may both come here; the second finds nothing left to apply.
        async with self._applying:
            changed, self.in_force.pending = self.in_force.pending, None
            if changed is None:
                return
            before = self.coordinator.gateways
            after = [
                next((gateway for gateway in before if gateway.settings == settings), None)
                or await open_gateway(settings)
                for settings in changed.settings.gateways
            ]
            runner_before = runner_after = self.coordinator.planner.inputs.live_runner
            if self.in_force.settings.live_runner != changed.settings.live_runner:
                metrics = self.coordinator.metrics
                runner_after = await open_live_runner(changed.settings.live_runner, self.sessions, metrics)
            live_video = self.coordinator.planner.inputs.live_video
            if self.in_force.settings.live_video != changed.settings.live_video:
                live_video = make_live_video(changed.settings.live_video, self.coordinator.metrics)
            self.in_force.current = changed
            self.coordinator.reconfigure(
                TickInputs(changed.settings, changed.catalogue, changed.assets, after, runner_after, live_video)
            )
            if self.delivery is not None:
                options = DeliveryOptions.from_settings(changed.settings, self.delivery.client.url)
                self.delivery.reconfigure(options)
            for gateway in before:
                if gateway not in after:
                    await gateway.client.close()
            if runner_before is not None and runner_before is not runner_after:
                await runner_before.close()


async def open_gateway(settings: GatewaySettings) -> Gateway:
    """Build a gateway and open its client."""
    gateway = Gateway.from_settings(settings)
    await gateway.client.open()
    return gateway


async def open_live_runner(
    settings: LiveRunnerSettings, journal: RunnerSessions, metrics: Metrics
) -> LiveRunnerPeer | None:
    """Build what tests live runners and open its client; None where [live_runner] is not enabled."""
    if not settings.enabled:
        return None
    peer = LiveRunnerPeer.from_settings(settings, journal, metrics)
    await peer.open()
    return peer


def make_live_video(settings: LiveVideoSettings, metrics: Metrics) -> LiveVideo | None:
    """Build what runs live video; None where no gateway can reach the tester."""
    crashes = CrashBoundary(metrics.count_internal_error)
    return LiveVideo.from_settings(settings, crashes) if settings.callback_host else None


async def stop_sessions_left_over(
    live_runner: LiveRunnerPeer | None, settings: LiveRunnerSettings, journal: RunnerSessions, metrics: Metrics
) -> None:
    """Stop the sessions that were left open before: in the background, or at once if live runners are switched off."""
    if live_runner is not None:
        live_runner.sessions.stopper.start_stopping_left_over()
        return
    with contextlib.suppress(StoreError):  # then the next start stops them
        if not await journal.open_sessions():
            return
        peer = LiveRunnerPeer.from_settings(settings, journal, metrics)  # live runners have been switched off since
        await peer.open()
        try:
            await peer.sessions.stopper.stop_left_over()
        finally:
            await peer.close()
