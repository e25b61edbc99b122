"""Progress: the running tick as anybody may look at it, told to those who listen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobtester.domain.jobs import Job
from jobtester.domain.outcome import Outcome
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.report import Report
from jobtester.domain.results import Result
from jobtester.metrics import Metrics
from jobtester.tick.ports import Watcher


@dataclass(slots=True)
class Progress:
    """Follows one tick: its report so far, what is in the air on which lane, and the metrics."""

    report: Report
    metrics: Metrics
    watchers: tuple[Watcher, ...] = ()
    in_air: dict[str, tuple[Job, str, float]] = field(default_factory=dict)
    clock: Callable[[], float] = time.time

    def planned(self, plan: Plan) -> None:
        """Take over the plan."""
        self.report.plan(plan)
        for skip in plan.skipped:
            self.metrics.skipped.labels(skip.reason).inc()
        for watcher in self.watchers:
            watcher.planned(plan)

    def sent(self, job: Job, lane: str) -> None:
        """Note that a job is on its way."""
        self.in_air[job.id] = (job, lane, self.clock())
        self.metrics.in_air.set(len(self.in_air))
        for watcher in self.watchers:
            watcher.sent(job, lane)

    def deferred(self, job: Job, lane: str, why: str) -> None:
        """Note that a job is put off."""
        self._landed(job)
        self.report.deferred[why] += 1
        self.metrics.deferred.labels(why).inc()
        for watcher in self.watchers:
            watcher.deferred(job, lane, why)

    def recorded(self, result: Result) -> None:
        """Count a result."""
        job, verdict, metrics = result.job, result.verdict, self.metrics
        warm = str(job.warm).lower()
        self._landed(job)
        self.report.add(result)
        metrics.jobs.labels(job.pipeline, verdict.outcome.value, warm).inc()
        metrics.attribution.labels(result.attribution.kind.value).inc()
        for note in result.notes:
            metrics.answer_notes.labels(note.check, note.code).inc()
        if verdict.outcome is Outcome.PASSED:
            metrics.round_trip.labels(job.pipeline, warm).observe(result.round_trip_s)
            for name, measured in (("first_token_s", metrics.first_token), ("tokens_per_s", metrics.token_rate)):
                if name in result.measures:
                    measured.labels(job.pipeline, warm).observe(result.measures[name])
            metrics.last_success.labels(job.orchestrator.address, job.pipeline, job.model).set(self.clock())
        else:
            metrics.failures.labels(job.pipeline, verdict.code).inc()
        for watcher in self.watchers:
            watcher.recorded(result)

    def skipped(self, skip: Skip) -> None:
        """Count a planned job that will not be sent."""
        self.report.skip([skip])
        self.metrics.skipped.labels(skip.reason).inc()
        for watcher in self.watchers:
            watcher.skipped(skip)

    def end(self) -> None:
        """Take every job out of the air: the tick is over, also for those that could not be recorded."""
        self.in_air.clear()
        self.metrics.in_air.set(0)

    def _landed(self, job: Job) -> None:
        self.in_air.pop(job.id, None)
        self.metrics.in_air.set(len(self.in_air))
