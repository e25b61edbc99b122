"""Discover orchestrators, and plan a tick over them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

from jobtester.domain.orchestrators import Capability, Orchestrator, normalize_address
from jobtester.domain.plan import (
    RESERVE_PROBE,
    Pause,
    Plan,
    Selection,
    calculate_allowance_wei,
    limit_to_budget,
    make_plan,
)
from jobtester.domain.runner_status import RunnerStatus, follow_runners
from jobtester.gateway.discovery import discover
from jobtester.gateway.gateway import Gateway
from jobtester.live_runner.peer import LiveRunnerPeer
from jobtester.live_video.streams import LiveVideo
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import Catalogue
from jobtester.pipelines.definition import PipelineDefinition
from jobtester.pipelines.token_limits import TokenLimits
from jobtester.settings.model import Settings
from jobtester.store.live_runners import LiveRunners
from jobtester.store.results import Results
from jobtester.store.skips import Skips

_PROBE_S = 10.0


@dataclass(slots=True)
class TickInputs:
    """What ticks run with, in one holder: a reload replaces all of it between two ticks."""

    settings: Settings
    catalogue: Catalogue
    assets: Assets
    gateways: Sequence[Gateway]
    live_runner: LiveRunnerPeer | None = None
    live_video: LiveVideo | None = None

    def find_obstacle(self, capability: Capability) -> str:
        """Return the reason to skip where no gateway can send a capability's jobs to a named orchestrator."""
        if capability.byoc:
            return ""
        able = [gateway for gateway in self.gateways if gateway.targeting.kind != "byoc"]
        if capability.is_live_video and self.live_video is None:
            return "no_callback"
        if capability.is_live_video:
            return "" if any(gateway.settings.streams for gateway in able) else "no_streams"
        return "" if able else "no_targeting"


@dataclass(slots=True)
class TickPlanner:
    """Discovers orchestrators and plans ticks; `orchestrators` are those of the newest discovery.

    `selection` is what the command line leaves in besides the configuration. `clock` gives Unix seconds.
    """

    inputs: TickInputs
    results: Results
    runners: LiveRunners
    skips: Skips
    selection: Selection = Selection()  # noqa: RUF009 - an immutable value
    clock: Callable[[], float] = time.time
    token_limits: TokenLimits = field(default_factory=TokenLimits)
    orchestrators: Sequence[Orchestrator] = ()

    async def discover(self, patience_s: float | None = None) -> Sequence[Orchestrator]:
        """Ask who is there, and let every webhook gateway name them. Raises DiscoveryError.

        `patience_s` is how long an empty answer is asked for again, in seconds; None for what is configured.
        """
        settings = self.inputs.settings.discovery
        static = [
            Orchestrator(
                normalize_address(table.address),
                table.service_uri,
                tuple(Capability(entry.pipeline, entry.model, entry.byoc, entry.warm) for entry in table.capabilities),
            )
            for table in settings.orchestrators
        ]
        orchestrators = await discover(
            [gateway.client for gateway in self.inputs.gateways],
            source=settings.source,
            static=static,
            patience_s=settings.patience if patience_s is None else patience_s,
            announce=self.set_candidates,
        )
        self.set_candidates(orchestrators)
        if self.inputs.live_runner is not None:
            orchestrators = await self.inputs.live_runner.discovery.add_runners(orchestrators, static)
        self.orchestrators = orchestrators
        return orchestrators

    def set_candidates(self, orchestrators: Sequence[Orchestrator]) -> None:
        """Name these through every webhook gateway while no tick runs.

        Some lists are asked for through the gateways themselves, which know nobody before the webhook has named them.
        """
        for gateway in self.inputs.gateways:
            if gateway.lease is not None:
                gateway.lease.set_candidates(orchestrators)

    def effective_catalogue(self) -> Catalogue:
        """Return the pipelines with the limits that earlier answers taught, and the probe of sessions if it is on."""
        catalogue = self.token_limits.apply(self.inputs.catalogue)
        if self.inputs.settings.live_runner.probe == "off":
            return catalogue
        probe = PipelineDefinition(
            slug=RESERVE_PROBE,
            runner=True,
            uri="/",
            timeout=_PROBE_S,
            cold_timeout=_PROBE_S,
            capture_response=False,  # it names the session, which nobody else needs to know
        )
        return MappingProxyType({RESERVE_PROBE: probe, **catalogue})

    async def plan(self, tick: str, orchestrators: Sequence[Orchestrator]) -> Plan:
        """Plan a tick over discovered orchestrators, within the budget."""
        settings = self.inputs.settings
        seed = secrets.randbits(32)
        selection = Selection(
            include=tuple(settings.discovery.include),
            exclude=tuple(settings.discovery.exclude),
            orchestrators=self.selection.orchestrators,
            pipelines=self.selection.pipelines,
            models=self.selection.models,
            max_price_wei=settings.budget.max_price_per_job,
            pauses=tuple(
                Pause(tuple(pause.orchestrators), pause.reason)
                for pause in settings.pause
                if pause.is_active(datetime.fromtimestamp(self.clock(), UTC))
            ),
            pays_runners=settings.live_runner.payment.signer_url is not None,
            max_runner_price_wei=settings.live_runner.payment.max_price_per_job,
        )
        whole = await asyncio.to_thread(
            make_plan,
            orchestrators,
            self.effective_catalogue(),
            selection,
            tick=tick,
            seed=seed,
            new_id=lambda: secrets.token_hex(8),
            find_obstacle=self.inputs.find_obstacle,
            expected_s=await self.results.durations(),
        )
        whole = replace(whole, runners=tuple(await self._follow_runners(orchestrators)))
        budget = settings.budget
        if budget.per_tick is None and budget.per_day is None:
            return whole
        now = self.clock()
        midnight = now - now % 86_400
        max_wei = calculate_allowance_wei(budget.per_tick, budget.per_day, await self.results.spent_wei(midnight))
        return limit_to_budget(whole, max_wei, await self.results.tested_since(midnight))

    async def record_discovery(self, plan: Plan, started_at: float) -> None:
        """Store what a plan skips and its live runners, as the tick that started at `started_at` has found them."""
        await self.skips.record(plan.skipped, started_at)
        if self.inputs.live_runner is not None:
            await self.runners.replace(plan.runners)

    async def _follow_runners(self, orchestrators: Sequence[Orchestrator]) -> list[RunnerStatus]:
        if self.inputs.live_runner is None:
            return []
        before = await self.runners.read()
        return await asyncio.to_thread(follow_runners, before, orchestrators, now=self.clock())
