"""Follow what ticks change, export it by capability, and hand it to the notifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jobtester.daemon.notification import Notification
from jobtester.daemon.notifier import Notifier
from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result
from jobtester.domain.tick_changes import ChangeTracker
from jobtester.domain.tick_report import TickReport
from jobtester.metrics import Metrics, capability_labels
from jobtester.settings.model import Settings


@dataclass(slots=True)
class ChangeObserver:
    """Observes ticks one after the other. `settings` is called at the end of each."""

    settings: Callable[[], Settings]
    metrics: Metrics
    notifier: Notifier | None = None
    tracker: ChangeTracker = field(default_factory=ChangeTracker)
    _planned: set[tuple[str, ...]] = field(default_factory=set)
    _up: dict[tuple[str, ...], bool] = field(default_factory=dict)
    _seen: dict[tuple[str, ...], bool] = field(default_factory=dict)

    def on_planned(self, plan: Plan) -> None:
        """Remember which capabilities the tick is about."""
        self._planned = {capability_labels(job) for job in plan.jobs}
        self._seen.clear()

    def on_sent(self, job: Job, gateway: str) -> None:
        """Do nothing: a job on its way changes nothing."""

    def on_deferred(self, job: Job, gateway: str, reason: str) -> None:
        """Do nothing: a deferred job has no result yet."""

    def on_skipped(self, skip: Skip) -> None:
        """Do nothing: what is not tested does not change."""

    def on_recorded(self, result: Result) -> None:
        """Remember what a result says of its capability."""
        self.tracker.add(result)
        if result.verdict.outcome is not Outcome.UNSCORED:
            labels = capability_labels(result.job)
            # One orchestrator may be known by several service URIs; one that fails is what people have to see.
            self._seen[labels] = self._seen.get(labels, True) and result.verdict.outcome is Outcome.PASSED

    def finish(self, report: TickReport) -> None:
        """End a tick: export its capabilities and notify people."""
        settings = self.settings()
        changes = self.tracker.finish(report.state)
        if report.state in ("finished", "suspect"):
            # A suspect tick's failures are probably the gateway's.
            seen = {labels: up for labels, up in self._seen.items() if up or report.state == "finished"}
            # What is not planned any more, as in a pause, has no state: else its alert would never end.
            self._up = {labels: up for labels, up in (self._up | seen).items() if labels in self._planned}
            limit = settings.metrics.max_capabilities if settings.metrics.capabilities else 0
            self.metrics.export_capabilities(self._up if limit else {}, limit)
        if self.notifier is not None:
            url = settings.server.public_url
            self.notifier.enqueue(Notification(report, changes, settings.region, url))
