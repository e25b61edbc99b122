"""The conductor: one tick from discovery to its report, and never two at once."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from jobtester import interpreter
from jobtester.crashes import CrashBoundary
from jobtester.domain import budget
from jobtester.domain import plan as planning
from jobtester.domain.attribution import Kind
from jobtester.domain.orchestrators import Capability, Orchestrator, normal_address
from jobtester.domain.plan import Plan, Selection
from jobtester.domain.report import Report
from jobtester.errors import DiscoveryError, StoreError
from jobtester.gateway import discovery
from jobtester.gateway.connection_probe import ConnectionProbe
from jobtester.gateway.events import Completed
from jobtester.gateway.lane import Lane
from jobtester.gateway.targeting import Webhook
from jobtester.metrics import Metrics
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import Catalogue, writing
from jobtester.pipelines.examiner import Examiner
from jobtester.pipelines.request import Requests
from jobtester.pipelines.token_limits import TokenLimits
from jobtester.settings import Settings
from jobtester.store.results import Results
from jobtester.store.ticks import Ticks
from jobtester.tick.ports import Watcher
from jobtester.tick.progress import Progress
from jobtester.tick.recorder import Posting, StoreRecorder
from jobtester.tick.runner import Pace, Runner
from jobtester.tick.trial import Bounds, Trial

log = structlog.get_logger()

T = TypeVar("T")
Durations = Mapping[tuple[str, str, str, str], float]


@dataclass(slots=True)
class Conductor:
    """Runs ticks, calling `before` ahead of each. What it runs with is what is in force when a tick begins."""

    settings: Settings
    catalogue: Catalogue
    assets: Assets
    lanes: Sequence[Lane]
    examiner: Examiner
    ticks: Ticks
    results: Results
    metrics: Metrics
    delivered: Callable[[], None]
    posting: bool
    watchers: tuple[Watcher, ...] = ()
    selection: Selection = Selection()  # noqa: RUF009 - an immutable value
    clock: Callable[[], float] = time.time
    told: Callable[[Report], None] | None = None
    before: Callable[[], Awaitable[None]] | None = None
    progress: Progress | None = None
    orchestrators: Sequence[Orchestrator] = ()
    problem: str = ""
    reports: deque[Report] = field(default_factory=lambda: deque(maxlen=50))
    token_limits: TokenLimits = field(default_factory=TokenLimits)
    _runner: Runner | None = None
    _recorder: StoreRecorder | None = None
    _stopping: str = ""
    _preparing: asyncio.Task[Any] | None = None

    @property
    def running(self) -> bool:
        """Tell whether a tick runs now."""
        return self.progress is not None and self.progress.report.finished_at is None

    def change(self, settings: Settings, catalogue: Catalogue, assets: Assets, lanes: Sequence[Lane]) -> None:
        """Use these from the next tick on; new webhook gateways learn at once who is known."""
        self.settings, self.catalogue, self.assets, self.lanes = settings, catalogue, assets, lanes
        self.metrics.know_pipelines(catalogue, writing(catalogue))
        self._know(self.orchestrators)

    async def discover(self, patience_s: float | None = None) -> Sequence[Orchestrator]:
        """Ask who is there, and let every webhook lane know. Raises DiscoveryError.

        `patience_s` is how long an empty answer is asked for again, in seconds; None for what is configured.
        """
        settings = self.settings.discovery
        static = [
            Orchestrator(
                normal_address(one.address),
                one.service_uri,
                tuple(Capability(c.pipeline, c.model, c.byoc, c.warm) for c in one.capabilities),
            )
            for one in settings.orchestrators
        ]
        found = await discovery.discover(
            [lane.client for lane in self.lanes],
            source=settings.source,
            static=static,
            patience_s=settings.patience if patience_s is None else patience_s,
            announce=self._know,
        )
        self._know(found)
        self.orchestrators = found
        return found

    async def plan(self, tick: str, found: Sequence[Orchestrator]) -> Plan:
        """Plan a tick over what was discovered."""
        durations: Durations = await self.results.durations()

        def expected(orchestrator: Orchestrator, capability: Capability) -> float | None:
            return durations.get(
                (orchestrator.address, orchestrator.service_uri, capability.pipeline, capability.model)
            )

        seed = secrets.randbits(32)
        selection = Selection(
            include=tuple(self.settings.discovery.include),
            exclude=tuple(self.settings.discovery.exclude),
            orchestrators=self.selection.orchestrators,
            pipelines=self.selection.pipelines,
            models=self.selection.models,
        )
        whole = await asyncio.to_thread(
            planning.make,
            found,
            self.token_limits.applied(self.catalogue),
            selection,
            tick=tick,
            seed=seed,
            new_id=lambda: secrets.token_hex(8),
            aimable=lambda byoc: byoc or any(lane.targeting.kind != "byoc" for lane in self.lanes),
            max_price_wei=self.settings.budget.max_price_per_job,
            expected_s=expected,
        )
        bounds = self.settings.budget
        if bounds.per_tick is None and bounds.per_day is None:
            return whole
        now = self.clock()
        midnight = now - now % 86_400
        most = budget.left_wei(bounds.per_tick, bounds.per_day, await self.results.spent_wei(midnight))
        return budget.within(whole, most, await self.results.tested_since(midnight))

    async def tick(self, trigger: str) -> Report:
        """Run one whole tick and give its report; what goes wrong is in the report, and in the log."""
        assert not self.running, "never two ticks at once"
        self._stopping = ""
        boundary = CrashBoundary(self.metrics.count_internal_error)
        if self.before is not None:
            with boundary.unit("reload"):
                await self.before()
        began = self.clock()
        tick = _name(began)
        report = Report(tick, trigger, began)
        self.progress = Progress(report, self.metrics, self.watchers, clock=self.clock)
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
                await self._keep(replace(report, state=state, problem=problem, finished_at=finished_at))
        finally:  # only now is it over for whoever asks, who then finds it kept
            report.state, report.problem, report.finished_at = state, problem, finished_at
            self.problem = problem
            self._runner = None
            self.progress.end()
            self.metrics.tick_running.set(0)
            self.metrics.ticks.labels(state).inc()
            self.metrics.tick_duration.set(finished_at - began)
            if state in ("finished", "suspect"):
                self.metrics.tick_finished.set(finished_at)
            self.reports.append(report)
        if self.told is not None:
            with boundary.unit("notification", tick=tick):
                self.told(report)
        log.info("tick_done", **{key: value for key, value in report.as_json().items() if value not in ("", {}, None)})
        interpreter.tidy()
        return report

    def stop(self, reason: str = "stopped") -> None:
        """Let no further job begin, in the running tick or in one that is only beginning."""
        self._stopping = reason
        if self._preparing is not None:
            self._preparing.cancel()
        if self._runner is not None:
            self._runner.close(reason)

    def abort(self) -> None:
        """End running jobs now."""
        if self._runner is not None:
            self._runner.abort()

    async def heard(self, gateway: Lane, event: Completed) -> bool:
        """Weigh an event that came from a gateway's sink; tell whether it changed what is known of a job."""
        if gateway.evidence.events is None or self._recorder is None:
            return False
        gateway.evidence.events.add(event)
        late = gateway.evidence.late(event)
        if late is None:
            return False
        amended = await self._recorder.amend(*late)
        if amended and late[1].kind is Kind.REFUTED:
            gateway.trust.saw(Kind.REFUTED)
        return amended

    async def _keep(self, ended: Report) -> None:
        """Note in the store how a tick ended."""
        assert ended.finished_at is not None
        try:
            await self.ticks.finish(ended.tick, ended.state, ended.finished_at, ended.as_json())
        except StoreError as error:
            log.error("tick_not_kept", tick=ended.tick, problem=str(error))

    async def make_trial(self, seed: int) -> Trial:
        """Return what sends and judges the jobs of a tick with this seed."""
        limits = self.settings.limits
        catalogue = self.token_limits.applied(self.catalogue)
        requests = await asyncio.to_thread(Requests, catalogue, self.assets, seed)
        bounds = Bounds(limits.max_response, limits.max_artefact)
        connections = ConnectionProbe(one.service_uri for one in self.orchestrators if one.service_uri)
        return Trial(catalogue, requests, self.examiner, bounds, self.token_limits, connections)

    async def _run(self, report: Report) -> str:
        """Run it, and give the state in which it ended."""
        assert self.progress is not None
        tick = report.tick
        seen = await self._unless_stopped(self._look())
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
        self.progress.planned(plan)
        await self._unless_stopped(self._begin_lanes(found))
        for lane, well in zip(self.lanes, alive, strict=True):
            lane.lost = not well
            self.metrics.gateway_up.labels(lane.name).set(int(well))
            if not well:
                log.error("gateway_silent", tick=tick, gateway=lane.name, url=lane.client.url)
        recorder = self._recorder = StoreRecorder(self.results, self._posting(), tick, self.delivered, self.clock)
        limits = self.settings.limits
        trial = await self.make_trial(plan.seed)
        pace = Pace(
            jobs=limits.jobs,
            per_orchestrator=limits.per_orchestrator,
            deadline_s=self.settings.schedule.deadline,
            busy_retries=limits.busy_retries,
            busy_backoff_s=limits.busy_backoff,
            busy_patience_s=limits.busy_patience,
        )
        self._runner = Runner(
            plan, self.lanes, trial, recorder, self.progress, pace, CrashBoundary(self.metrics.count_internal_error)
        )
        if self._stopping:
            self._runner.close(self._stopping)
        try:
            await self._runner.run()
        finally:
            for lane in self.lanes:
                lane.end()
                self.metrics.gateway_up.labels(lane.name).set(int(not lane.lost))
            suspect = await recorder.finish()
            for address, pipeline, model, streak in await self.results.unscored_streaks(tick):
                self.metrics.unscored_ticks.labels(address, pipeline, model).set(streak)
        return "aborted" if self._stopping == "stopped" else "suspect" if suspect else "finished"

    async def _look(self) -> tuple[Sequence[bool], Sequence[Orchestrator]]:
        """Return which gateways answer, in their order, and who is there. Raises DiscoveryError."""
        return await asyncio.gather(*(self._alive(lane) for lane in self.lanes)), await self.discover()

    async def _alive(self, lane: Lane) -> bool:
        with CrashBoundary(self.metrics.count_internal_error).unit("probe", gateway=lane.name):
            return await lane.client.alive()
        return False

    async def _begin_lanes(self, found: Sequence[Orchestrator]) -> None:
        for lane in self.lanes:
            await lane.begin(found)

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

    def _know(self, found: Sequence[Orchestrator]) -> None:
        for lane in self.lanes:
            if isinstance(lane.targeting, Webhook):
                lane.targeting.lease.know(found)

    def _posting(self) -> Posting:
        settings = self.settings
        return Posting(
            region=settings.region,
            post=self.posting,
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


def _name(moment: float) -> str:
    """Name a tick after the instant at which it began."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%S") + f"{int(moment % 1 * 1000):03d}Z"
