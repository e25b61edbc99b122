"""Run one tick from discovery to its report, and never two at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from jobtester.checks.checker import AnswerChecker
from jobtester.crash_boundary import CrashBoundary
from jobtester.domain.orchestrators import Orchestrator
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.tick_report import TickReport
from jobtester.errors import DiscoveryError, StoreError
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.gateway_events import JobCompletedEvent
from jobtester.gateway.peer import JobPeer
from jobtester.metrics import Metrics
from jobtester.pipelines.catalogue import streaming_pipelines
from jobtester.store.results import Results
from jobtester.store.ticks import Ticks
from jobtester.tick.attempt_builder import make_attempts
from jobtester.tick.job_runner import JobLimits, JobRunner
from jobtester.tick.planner import TickInputs, TickPlanner
from jobtester.tick.progress import TickObserver, TickProgress
from jobtester.tick.recorder import PostingRules, ResultRecorder, add_late_evidence

log = structlog.get_logger()

_MAX_REPORTS = 50
T = TypeVar("T")


@dataclass(slots=True)
class TickCoordinator:
    """Runs ticks, each with what is in force when it begins; `before_tick` is called ahead of each.

    It has more fields than a class should: here the parts of a tick meet that know nothing of each other.
    """

    planner: TickPlanner
    checker: AnswerChecker
    ticks: Ticks
    results: Results
    metrics: Metrics
    on_recorded: Callable[[], None]
    is_posting: bool
    observers: tuple[TickObserver, ...] = ()
    clock: Callable[[], float] = time.time
    on_tick_finished: Callable[[TickReport], None] | None = None
    before_tick: Callable[[], Awaitable[None]] | None = None
    progress: TickProgress | None = None
    problem: str = ""
    reports: deque[TickReport] = field(default_factory=lambda: deque(maxlen=_MAX_REPORTS))
    _runner: JobRunner | None = None
    _recorder: ResultRecorder | None = None
    _stop_reason: str = ""
    _preparing: asyncio.Task[Any] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a tick runs now."""
        return self.progress is not None and self.progress.report.finished_at is None

    @property
    def gateways(self) -> Sequence[Gateway]:
        """The gateways in force."""
        return self.planner.inputs.gateways

    def reconfigure(self, inputs: TickInputs) -> None:
        """Use these inputs from the next tick on; new webhook gateways learn at once who is known."""
        self.planner.inputs = inputs
        self.metrics.start_series(inputs.catalogue, streaming_pipelines(inputs.catalogue))
        self.planner.set_candidates(self.planner.orchestrators)

    async def run_tick(self, trigger: str) -> TickReport:
        """Run one whole tick and return its report; what goes wrong is in the report, and in the log."""
        assert not self.is_running, "never two ticks at once"
        self._stop_reason = ""
        crashes = CrashBoundary(self.metrics.count_internal_error)
        if self.before_tick is not None:
            with crashes.unit("reload"):
                await self.before_tick()
        started_at = self.clock()
        # The id of a tick is the instant at which it began, to the millisecond.
        moment = datetime.fromtimestamp(started_at, UTC).strftime("%Y%m%dT%H%M%S")
        tick = f"{moment}{int(started_at % 1 * 1000):03d}Z"
        report = TickReport(tick, trigger, started_at)
        self.progress = TickProgress(report, self.metrics, self.observers, clock=self.clock)
        self.metrics.tick_running.set(1)
        self.metrics.tick_started.set(started_at)
        state, problem = "aborted", ""
        try:
            try:
                state, problem = await self._run_guarded(report, self.progress, crashes)
            finally:
                finished_at = self.clock()
            with crashes.unit("tick", tick=tick):
                ended = replace(report, state=state, problem=problem, finished_at=finished_at)
                await self._record_end(ended, self.progress.late_skips)
        finally:
            # Only now does the tick count as over: by then its end is recorded.
            report.state, report.problem, report.finished_at = state, problem, finished_at
            self.problem = problem
            self._runner = None
            self.progress.finish()
            self._export_end(report, finished_at)
            self.reports.append(report)
        if self.on_tick_finished is not None:
            with crashes.unit("notification", tick=tick):
                self.on_tick_finished(report)
        log.info("tick_done", **{key: value for key, value in report.as_json().items() if value not in ("", {}, None)})
        return report

    def stop(self, reason: str = "stopped") -> None:
        """Begin no further job, in the running tick or in one that is only beginning."""
        self._stop_reason = reason
        if self._preparing is not None:
            self._preparing.cancel()
        if self._runner is not None:
            self._runner.stop(reason)

    def abort(self) -> None:
        """End running jobs now."""
        if self._runner is not None:
            self._runner.abort()

    async def weigh_late_event(self, gateway: Gateway, event: JobCompletedEvent) -> bool:
        """Weigh an event that came from a gateway's sink; return True if it changed what is known of a job."""
        if gateway.evidence.events is None or self._recorder is None:
            return False
        gateway.evidence.events.add(event)
        late = gateway.evidence.weigh_late_event(event)
        return late is not None and await add_late_evidence(self._recorder, gateway, *late)

    async def _run_guarded(self, report: TickReport, progress: TickProgress, crashes: CrashBoundary) -> tuple[str, str]:
        """Run the tick; return its state and what went wrong, also if that was unexpected."""
        try:
            with crashes.unit("tick", expected=(DiscoveryError, StoreError), tick=report.tick) as crash:
                try:
                    return await self._run(report, progress), ""
                except ExceptionGroup as group:  # jobs run side by side
                    raise _cause_of(group) from group
        except (DiscoveryError, StoreError) as error:
            log.error("tick_failed", tick=report.tick, problem=str(error))
            return "failed", str(error)
        return "failed", crash.message

    async def _run(self, report: TickReport, progress: TickProgress) -> str:
        """Run the tick and return the state in which it ended."""
        probed = await self._unless_stopped(self._probe_and_discover())
        if probed is None:
            return "aborted"
        are_alive, discovered = probed
        plan = await self.planner.plan(report.tick, discovered)
        # Of a service URI whose address nobody knows, everything is skipped.
        orchestrators = [orchestrator for orchestrator in discovered if orchestrator.address]
        report.orchestrators = len(orchestrators)
        self.metrics.orchestrators.set(len(orchestrators))
        await self.ticks.start(report.tick, report.started_at, plan.seed, report.trigger)
        await self.planner.record_discovery(plan, report.started_at)
        self.metrics.export_runners(plan.runners)
        log.info(
            "tick_started",
            tick=report.tick,
            trigger=report.trigger,
            seed=plan.seed,
            orchestrators=len(orchestrators),
            jobs=len(plan.jobs),
            skipped=len(plan.skipped),
        )
        progress.on_planned(plan)
        peers = self._peers(plan)
        await self._unless_stopped(self._begin_peers(peers, orchestrators))
        for gateway, is_alive in zip(self.gateways, are_alive, strict=True):
            gateway.is_down = not is_alive
            self.metrics.gateway_up.labels(gateway.name).set(int(is_alive))
            if not is_alive:
                log.error("gateway_down", tick=report.tick, gateway=gateway.name, url=gateway.client.url)
        return await self._run_jobs(plan, peers, progress)

    def _peers(self, plan: Plan) -> Sequence[JobPeer]:
        """Return all gateways, and the orchestrators themselves if the plan has jobs for live runners."""
        live_runner = self.planner.inputs.live_runner
        has_runner_jobs = any(job.capability.runner is not None for job in plan.jobs)
        return [*self.gateways, live_runner] if live_runner is not None and has_runner_jobs else self.gateways

    async def _run_jobs(self, plan: Plan, peers: Sequence[JobPeer], progress: TickProgress) -> str:
        """Run the planned jobs and return the state in which the tick ended."""
        settings = self.planner.inputs.settings
        rules = PostingRules.from_settings(settings, is_posting=self.is_posting)
        recorder = ResultRecorder(self.results, rules, plan.tick, self.on_recorded, self.clock)
        crashes = CrashBoundary(self.metrics.count_internal_error)
        attempts = await make_attempts(self.planner, self.checker, self.metrics, seed=plan.seed)
        self._recorder = recorder
        limits = JobLimits.from_settings(settings)
        self._runner = JobRunner(plan, peers, attempts, recorder, progress, limits, crashes)
        if self._stop_reason:
            self._runner.stop(self._stop_reason)
        try:
            await self._runner.run()
        finally:
            for peer in peers:
                peer.end_tick()
            for gateway in self.gateways:
                self.metrics.gateway_up.labels(gateway.name).set(int(not gateway.is_down))
            is_suspect = await recorder.finish()
            self.metrics.export_streaks(plan, await self.results.unscored_streaks(plan.tick))
        if self._stop_reason == "stopped":
            return "aborted"
        return "suspect" if is_suspect else "finished"

    async def _record_end(self, report: TickReport, late_skips: Sequence[Skip]) -> None:
        assert report.finished_at is not None
        try:
            if late_skips:
                await self.planner.skips.record(late_skips, report.started_at)
            await self.ticks.finish(report.tick, report.state, report.finished_at, report.as_json())
        except StoreError as error:
            log.error("tick_end_not_recorded", tick=report.tick, problem=str(error))

    def _export_end(self, report: TickReport, finished_at: float) -> None:
        self.metrics.tick_running.set(0)
        self.metrics.ticks.labels(report.state).inc()
        self.metrics.tick_duration.set(finished_at - report.started_at)
        if report.state in ("finished", "suspect"):
            self.metrics.tick_finished.set(finished_at)

    async def _probe_and_discover(self) -> tuple[Sequence[bool], Sequence[Orchestrator]]:
        """Return which gateways answer, in their order, and who is there. Raises DiscoveryError."""
        are_alive = await asyncio.gather(*(self._is_alive(gateway) for gateway in self.gateways))
        return are_alive, await self.planner.discover()

    async def _is_alive(self, gateway: Gateway) -> bool:
        with CrashBoundary(self.metrics.count_internal_error).unit("probe", gateway=gateway.name):
            return await gateway.client.is_alive()
        return False

    async def _begin_peers(self, peers: Sequence[JobPeer], orchestrators: Sequence[Orchestrator]) -> None:
        for peer in peers:
            await peer.begin_tick(orchestrators)

    async def _unless_stopped(self, preparation: Coroutine[Any, Any, T]) -> T | None:
        """Prepare for jobs; None if stop() comes first, since nothing has begun yet that would need an end."""
        self._preparing = asyncio.create_task(preparation, name="preparation")
        if self._stop_reason:
            self._preparing.cancel()
        try:
            await asyncio.wait({self._preparing})
            return None if self._preparing.cancelled() else self._preparing.result()
        finally:
            self._preparing.cancel()
            self._preparing = None


def _cause_of(group: ExceptionGroup[Exception]) -> Exception:
    """Return the expected error that ended a group of jobs; the group itself if there is an unexpected one."""
    expected, unexpected = group.split((DiscoveryError, StoreError))
    if expected is None or unexpected is not None:
        return group
    error: Exception = expected
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
