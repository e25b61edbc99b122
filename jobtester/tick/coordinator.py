"""The conductor: one tick from discovery to its report, and never two at once."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from jobtester.checks.checker import AnswerChecker
from jobtester.domain.attribution import AttributionKind
from jobtester.domain.orchestrators import Capability, Orchestrator, normalize_address
from jobtester.domain.plan import Plan, Selection, calculate_allowance_wei, limit_to_budget, make_plan
from jobtester.domain.tick_report import TickReport
from jobtester.errors import CrashBoundary, DiscoveryError, StoreError
from jobtester.gateway import discovery
from jobtester.gateway.connection_probe import ConnectionProbe
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.gateway_events import JobCompletedEvent
from jobtester.gateway.targeting import WebhookTargeting
from jobtester.metrics import Metrics
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import Catalogue, streaming_pipelines
from jobtester.pipelines.request import Requests
from jobtester.pipelines.token_limits import TokenLimits
from jobtester.settings.model import Settings
from jobtester.store.results import Results
from jobtester.store.ticks import Ticks
from jobtester.tick.attempt import JobAttempt, SizeLimits
from jobtester.tick.job_runner import JobLimits, JobRunner
from jobtester.tick.progress import TickObserver, TickProgress
from jobtester.tick.recorder import PostingRules, ResultRecorder

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(slots=True)
class TickCoordinator:
    """Runs ticks, calling `before` ahead of each. What it runs with is what is in force when a tick begins."""

    settings: Settings
    catalogue: Catalogue
    assets: Assets
    gateways: Sequence[Gateway]
    checker: AnswerChecker
    ticks: Ticks
    results: Results
    metrics: Metrics
    on_recorded: Callable[[], None]
    is_posting: bool
    observers: tuple[TickObserver, ...] = ()
    selection: Selection = Selection()  # noqa: RUF009 - an immutable value
    clock: Callable[[], float] = time.time
    on_tick_finished: Callable[[TickReport], None] | None = None
    before_tick: Callable[[], Awaitable[None]] | None = None
    progress: TickProgress | None = None
    orchestrators: Sequence[Orchestrator] = ()
    problem: str = ""
    reports: deque[TickReport] = field(default_factory=lambda: deque(maxlen=50))
    token_limits: TokenLimits = field(default_factory=TokenLimits)
    _runner: JobRunner | None = None
    _recorder: ResultRecorder | None = None
    _stopping: str = ""
    _preparing: asyncio.Task[Any] | None = None

    @property
    def is_running(self) -> bool:
        """Tell whether a tick runs now."""
        return self.progress is not None and self.progress.report.finished_at is None

    def reconfigure(
        self, settings: Settings, catalogue: Catalogue, assets: Assets, gateways: Sequence[Gateway]
    ) -> None:
        """Use these from the next tick on; new webhook gateways learn at once who is known."""
        self.settings, self.catalogue, self.assets, self.gateways = settings, catalogue, assets, gateways
        self.metrics.start_series(catalogue, streaming_pipelines(catalogue))
        self._set_candidates(self.orchestrators)

    async def discover(self, patience_s: float | None = None) -> Sequence[Orchestrator]:
        """Ask who is there, and let every webhook gateway know. Raises DiscoveryError.

        `patience_s` is how long an empty answer is asked for again, in seconds; None for what is configured.
        """
        settings = self.settings.discovery
        static = [
            Orchestrator(
                normalize_address(one.address),
                one.service_uri,
                tuple(Capability(c.pipeline, c.model, c.byoc, c.warm) for c in one.capabilities),
            )
            for one in settings.orchestrators
        ]
        found = await discovery.discover(
            [gateway.client for gateway in self.gateways],
            source=settings.source,
            static=static,
            patience_s=settings.patience if patience_s is None else patience_s,
            announce=self._set_candidates,
        )
        self._set_candidates(found)
        self.orchestrators = found
        return found

    async def plan(self, tick: str, found: Sequence[Orchestrator]) -> Plan:
        """Plan a tick over what was discovered."""
        seed = secrets.randbits(32)
        selection = Selection(
            include=tuple(self.settings.discovery.include),
            exclude=tuple(self.settings.discovery.exclude),
            orchestrators=self.selection.orchestrators,
            pipelines=self.selection.pipelines,
            models=self.selection.models,
            max_price_wei=self.settings.budget.max_price_per_job,
        )
        whole = await asyncio.to_thread(
            make_plan,
            found,
            self.token_limits.apply(self.catalogue),
            selection,
            tick=tick,
            seed=seed,
            new_id=lambda: secrets.token_hex(8),
            can_target=lambda byoc: byoc or any(gateway.targeting.kind != "byoc" for gateway in self.gateways),
            expected_s=await self.results.durations(),
        )
        bounds = self.settings.budget
        if bounds.per_tick is None and bounds.per_day is None:
            return whole
        now = self.clock()
        midnight = now - now % 86_400
        most = calculate_allowance_wei(bounds.per_tick, bounds.per_day, await self.results.spent_wei(midnight))
        return limit_to_budget(whole, most, await self.results.tested_since(midnight))

    async def run_tick(self, trigger: str) -> TickReport:
        """Run one whole tick and give its report; what goes wrong is in the report, and in the log."""
        assert not self.is_running, "never two ticks at once"
        self._stopping = ""
        boundary = CrashBoundary(self.metrics.count_internal_error)
        if self.before_tick is not None:
            with boundary.unit("reload"):
                await self.before_tick()
        began = self.clock()
        tick = _tick_id(began)
        report = TickReport(tick, trigger, began)
        self.progress = TickProgress(report, self.metrics, self.observers, clock=self.clock)
        self.metrics.tick_running.set(1)
        self.metrics.tick_started.set(began)
        state, problem = "aborted", ""
        try:
            try:
                with boundary.unit("tick", expected=(DiscoveryError, StoreError), tick=tick) as crash:
                    try:
                        state = await self._run(report)
                    except ExceptionGroup as group:  # jobs run side by side
                        raise _cause_of(group) from group
                if crash.error is not None:
                    state, problem = "failed", crash.message
            except (DiscoveryError, StoreError) as error:
                state, problem = "failed", str(error)
                log.error("tick_failed", tick=tick, problem=problem)
            finally:
                finished_at = self.clock()
            with boundary.unit("tick", tick=tick):
                await self._record_end(replace(report, state=state, problem=problem, finished_at=finished_at))
        finally:  # only now is it over for whoever asks, who then finds it kept
            report.state, report.problem, report.finished_at = state, problem, finished_at
            self.problem = problem
            self._runner = None
            self.progress.finish()
            self.metrics.tick_running.set(0)
            self.metrics.ticks.labels(state).inc()
            self.metrics.tick_duration.set(finished_at - began)
            if state in ("finished", "suspect"):
                self.metrics.tick_finished.set(finished_at)
            self.reports.append(report)
        if self.on_tick_finished is not None:
            with boundary.unit("notification", tick=tick):
                self.on_tick_finished(report)
        log.info("tick_done", **{key: value for key, value in report.as_json().items() if value not in ("", {}, None)})
        return report

    def stop(self, reason: str = "stopped") -> None:
        """Let no further job begin, in the running tick or in one that is only beginning."""
        self._stopping = reason
        if self._preparing is not None:
            self._preparing.cancel()
        if self._runner is not None:
            self._runner.stop(reason)

    def abort(self) -> None:
        """End running jobs now."""
        if self._runner is not None:
            self._runner.abort()

    async def weigh_late_event(self, gateway: Gateway, event: JobCompletedEvent) -> bool:
        """Weigh an event that came from a gateway's sink; tell whether it changed what is known of a job."""
        if gateway.evidence.events is None or self._recorder is None:
            return False
        gateway.evidence.events.add(event)
        late = gateway.evidence.weigh_late_event(event)
        if late is None:
            return False
        amended = await self._recorder.add_evidence(*late)
        if amended and late[1].kind is AttributionKind.REFUTED:
            gateway.trust.count(AttributionKind.REFUTED)
        return amended

    async def _record_end(self, ended: TickReport) -> None:
        """Note in the store how a tick ended."""
        assert ended.finished_at is not None
        try:
            await self.ticks.finish(ended.tick, ended.state, ended.finished_at, ended.as_json())
        except StoreError as error:
            log.error("tick_not_kept", tick=ended.tick, problem=str(error))

    async def make_attempt(self, seed: int) -> JobAttempt:
        """Return what sends and judges the jobs of a tick with this seed."""
        limits = self.settings.limits
        catalogue = self.token_limits.apply(self.catalogue)
        requests = await asyncio.to_thread(Requests, catalogue, self.assets, seed)
        bounds = SizeLimits(limits.max_response, limits.max_artifact)
        connections = ConnectionProbe(one.service_uri for one in self.orchestrators if one.service_uri)
        return JobAttempt(catalogue, requests, self.checker, bounds, self.token_limits, connections)

    async def _run(self, report: TickReport) -> str:
        """Run it, and give the state in which it ended."""
        assert self.progress is not None
        tick = report.tick
        seen = await self._unless_stopped(self._discover_all())
        if seen is None:
            return "aborted"
        alive, found = seen
        report.orchestrators = len(found)
        self.metrics.orchestrators.set(len(found))
        plan = await self.plan(tick, found)
        await self.ticks.start(tick, report.started_at, plan.seed, report.trigger)
        log.info(
            "tick_started", tick=tick, trigger=report.trigger, seed=plan.seed, orchestrators=len(found),
            jobs=len(plan.jobs), skipped=len(plan.skipped),
        )  # fmt: skip
        self.progress.on_planned(plan)
        await self._unless_stopped(self._begin_gateways(found))
        for gateway, well in zip(self.gateways, alive, strict=True):
            gateway.is_down = not well
            self.metrics.gateway_up.labels(gateway.name).set(int(well))
            if not well:
                log.error("gateway_silent", tick=tick, gateway=gateway.name, url=gateway.client.url)
        recorder = self._recorder = ResultRecorder(self.results, self._posting(), tick, self.on_recorded, self.clock)
        limits = self.settings.limits
        trial = await self.make_attempt(plan.seed)
        pace = JobLimits(
            jobs=limits.jobs,
            per_orchestrator=limits.per_orchestrator,
            deadline_s=self.settings.schedule.deadline,
            busy_retries=limits.busy_retries,
            busy_backoff_s=limits.busy_backoff,
            busy_patience_s=limits.busy_patience,
        )
        self._runner = JobRunner(
            plan, self.gateways, trial, recorder, self.progress, pace, CrashBoundary(self.metrics.count_internal_error)
        )
        if self._stopping:
            self._runner.stop(self._stopping)
        try:
            await self._runner.run()
        finally:
            for gateway in self.gateways:
                gateway.end_tick()
                self.metrics.gateway_up.labels(gateway.name).set(int(not gateway.is_down))
            suspect = await recorder.finish()
            for address, pipeline, model, streak in await self.results.unscored_streaks(tick):
                self.metrics.unscored_ticks.labels(address, pipeline, model).set(streak)
        return "aborted" if self._stopping == "stopped" else "suspect" if suspect else "finished"

    async def _discover_all(self) -> tuple[Sequence[bool], Sequence[Orchestrator]]:
        """Return which gateways answer, in their order, and who is there. Raises DiscoveryError."""
        return await asyncio.gather(*(self._alive(gateway) for gateway in self.gateways)), await self.discover()

    async def _alive(self, gateway: Gateway) -> bool:
        with CrashBoundary(self.metrics.count_internal_error).unit("probe", gateway=gateway.name):
            return await gateway.client.is_alive()
        return False

    async def _begin_gateways(self, found: Sequence[Orchestrator]) -> None:
        for gateway in self.gateways:
            await gateway.begin_tick(found)

    async def _unless_stopped(self, preparation: Coroutine[Any, Any, T]) -> T | None:
        """Prepare for jobs; None if stop() comes first, since nothing has begun yet that would need an end."""
        self._preparing = asyncio.create_task(preparation, name="preparation")
        if self._stopping:
            self._preparing.cancel()
        try:
            await asyncio.wait({self._preparing})
            return None if self._preparing.cancelled() else self._preparing.result()
        finally:
            self._preparing.cancel()
            self._preparing = None

    def _set_candidates(self, found: Sequence[Orchestrator]) -> None:
        for gateway in self.gateways:
            if isinstance(gateway.targeting, WebhookTargeting):
                gateway.targeting.lease.set_candidates(found)

    def _posting(self) -> PostingRules:
        settings = self.settings
        return PostingRules(
            region=settings.region,
            post=self.is_posting,
            unscored=settings.leaderboard.post_unscored,
            suspect=settings.leaderboard.post_suspect,
            evidence_wait_s={one.name: one.evidence_wait for one in settings.gateways if one.events},
        )


def _cause_of(group: ExceptionGroup[Exception]) -> Exception:
    """Return the expected error that ended a group of jobs; the group itself if there is an unexpected one."""
    expected, unexpected = group.split((DiscoveryError, StoreError))
    if expected is None or unexpected is not None:
        return group
    error: Exception = expected
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _tick_id(moment: float) -> str:
    """Name a tick after the instant at which it began."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%S") + f"{int(moment % 1 * 1000):03d}Z"
