"""The progress of the running tick for observers: its report, jobs in flight and metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result
from jobtester.domain.tick_report import TickReport
from jobtester.metrics import Metrics, capability_labels


class TickObserver(Protocol):
    """Observes a running tick; nothing it does may fail or wait."""

    def on_planned(self, plan: Plan) -> None:
        """Called with the plan before the first job."""
        ...

    def on_sent(self, job: Job, gateway: str) -> None:
        """Called when a job is sent."""
        ...

    def on_deferred(self, job: Job, gateway: str, reason: str) -> None:
        """Called when a job is deferred to later in the tick."""
        ...

    def on_recorded(self, result: Result) -> None:
        """Called when a result is recorded."""
        ...

    def on_skipped(self, skip: Skip) -> None:
        """Called when a planned job will not be sent."""
        ...


@dataclass(slots=True)
class TickProgress:
    """Follows one tick: its report so far, its jobs in flight by id as (job, gateway, sent at), and the metrics."""

    report: TickReport
    metrics: Metrics
    observers: tuple[TickObserver, ...] = ()
    in_flight: dict[str, tuple[Job, str, float]] = field(default_factory=dict)
    clock: Callable[[], float] = time.time
    late_skips: list[Skip] = field(default_factory=list)  # of planned jobs

    def on_planned(self, plan: Plan) -> None:
        """Count what is planned and what is skipped."""
        self.report.set_plan(plan)
        self.report.planned_at = self.clock()
        for skip in plan.skipped:
            self.metrics.skipped.labels(skip.reason).inc()
        for observer in self.observers:
            observer.on_planned(plan)

    def on_sent(self, job: Job, gateway: str) -> None:
        """Add a job to those in flight."""
        self.in_flight[job.id] = (job, gateway, self.clock())
        self.metrics.in_flight.set(len(self.in_flight))
        for observer in self.observers:
            observer.on_sent(job, gateway)

    def on_deferred(self, job: Job, gateway: str, reason: str) -> None:
        """Count a job that is deferred."""
        self._remove_in_flight(job)
        self.report.deferred[reason] += 1
        self.metrics.deferred.labels(reason).inc()
        for observer in self.observers:
            observer.on_deferred(job, gateway, reason)

    def on_recorded(self, result: Result) -> None:
        """Count a result."""
        job, verdict, metrics = result.job, result.verdict, self.metrics
        warm = str(job.warm).lower()
        self._remove_in_flight(job)
        self.report.add_result(result)
        metrics.jobs.labels(job.definition, verdict.outcome.value, warm).inc()
        metrics.attribution.labels(result.attribution.kind.value).inc()
        if job.is_video and verdict.scored:
            for name, gauge in metrics.live_video.items():
                if name in result.measures:
                    gauge.labels(*capability_labels(job)).set(result.measures[name])
        for note in result.notes:
            metrics.answer_notes.labels(note.check, note.code).inc()
        if verdict.outcome is Outcome.PASSED:
            metrics.round_trip.labels(job.definition, warm).observe(result.round_trip_s)
            for name, measured in (("first_token_s", metrics.first_token), ("tokens_per_s", metrics.token_rate)):
                if name in result.measures:
                    measured.labels(job.definition, warm).observe(result.measures[name])
            metrics.last_success.labels(*capability_labels(job)).set(self.clock())
        else:
            metrics.failures.labels(job.definition, verdict.code).inc()
        for observer in self.observers:
            observer.on_recorded(result)

    def on_skipped(self, skip: Skip) -> None:
        """Count a planned job that will not be sent."""
        self.report.add_skips([skip])
        self.late_skips.append(skip)
        self.metrics.skipped.labels(skip.reason).inc()
        for observer in self.observers:
            observer.on_skipped(skip)

    def finish(self) -> None:
        """End the tick, also for jobs that could not be recorded: none is in flight any more."""
        self.in_flight.clear()
        self.metrics.in_flight.set(0)

    def _remove_in_flight(self, job: Job) -> None:
        self.in_flight.pop(job.id, None)
        self.metrics.in_flight.set(len(self.in_flight))
