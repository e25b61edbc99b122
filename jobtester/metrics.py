"""Metrics: the daemon's series for Prometheus, in a registry of their own."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric

from jobtester import __version__
from jobtester.crash_boundary import COMPONENTS
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import CapabilityKey
from jobtester.domain.plan import SKIP_REASONS, Plan
from jobtester.domain.reasons import REASONS, Outcome
from jobtester.domain.runner_status import STATES, RunnerStatus

disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = CONTENT_TYPE_LATEST
MAX_SERIES = 3_000
_BUCKETS = (0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
# `pipeline` names the definition, as in all other series; `app` is the app of a live runner, empty for other jobs.
_CAPABILITY_LABELS = ("orchestrator", "pipeline", "app", "model")
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def capability_labels(job: Job) -> tuple[str, str, str, str]:
    """Return the labels of a series about one capability of one orchestrator."""
    app = job.pipeline if job.capability.runner is not None else ""
    return job.orchestrator.address, job.definition, app, job.model


class _BoundedGauge(Gauge):
    # Its labels come from the network, so anybody could make the daemon keep ever more series.

    def labels(self, *values: Any, **named_values: Any) -> _BoundedGauge:
        """Return a series; if there are too many, drop the one that was not used for the longest time."""
        # A dict keeps the order of insertion, so the first key is the one that was not used for the longest time.
        used: dict[tuple[str, ...], None] = self.__dict__.setdefault("used", {})
        key = tuple(map(str, values))
        used.pop(key, None)
        used[key] = None
        if len(used) > MAX_SERIES:
            oldest = next(iter(used))
            del used[oldest]
            self.remove(*oldest)
        return super().labels(*values, **named_values)


class _RegionCollector(CollectorRegistry):
    # Adds the region to every series, so that several testers in one Prometheus are told apart by it.

    def __init__(self, registry: CollectorRegistry, region: str) -> None:
        super().__init__()
        self._registry, self._labels = registry, {"region": region} if region else {}

    def collect(self) -> Iterator[Metric]:
        """Yield every series of the registry with the region."""
        for family in self._registry.collect():
            labeled = Metric(family.name, family.documentation, family.type, family.unit)
            labeled.samples = [sample._replace(labels={**sample.labels, **self._labels}) for sample in family.samples]
            yield labeled


class Metrics:
    """Every series of one daemon, one attribute each.

    Labels come from bounded sets: pipelines, reason codes, states; never free text.
    """

    def __init__(self, region: Callable[[], str] = lambda: "") -> None:
        self._region = region  # may change while the daemon runs
        self._exported: set[tuple[str, ...]] = set()
        registry = self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram, bounded_gauge = partial(Histogram, registry=registry), partial(_BoundedGauge, registry=registry)
        self.jobs = counter("jobtester_jobs", "Jobs settled", ["pipeline", "outcome", "warm"])
        self.failures = counter("jobtester_job_failures", "Jobs that failed or stayed unscored", ["pipeline", "reason"])
        self.answer_notes = counter(
            "jobtester_answer_notes", "Oddities of answers that change no outcome", ["check", "note"]
        )
        self.round_trip = histogram(
            "jobtester_round_trip_seconds",
            "From handing a passed job to the gateway to the last byte of its answer",
            ["pipeline", "warm"],
            buckets=_BUCKETS,
        )
        self.first_token = histogram(
            "jobtester_first_token_seconds",
            "From handing a passed job to the gateway to the first token of its streamed answer",
            ["pipeline", "warm"],
            buckets=_BUCKETS,
        )
        self.token_rate = histogram(
            "jobtester_tokens_per_second",
            "Tokens per second of passed jobs: from the first token of a streamed answer on, else over the round trip",
            ["pipeline", "warm"],
            buckets=_RATES,
        )
        self.last_success = bounded_gauge(
            "jobtester_last_success_timestamp_seconds",
            "When a job of this kind last passed",
            _CAPABILITY_LABELS,
        )
        self.unscored_ticks = bounded_gauge(
            "jobtester_unscored_ticks",
            "Ticks in a row without a score; 0 after one with a score",
            _CAPABILITY_LABELS,
        )
        # By the measure of a result that each one shows.
        self.live_video = {
            measure: bounded_gauge(f"jobtester_live_{name}", text, _CAPABILITY_LABELS)
            for measure, name, text in (
                ("first_frame_s", "first_frame_seconds", "Newest live video: from its start to its first frame"),
                ("output_fps", "frames_per_second", "Newest live video: frames received per second"),
                ("longest_gap_s", "longest_gap_seconds", "Newest live video: longest time without a frame"),
                ("delay_p50_s", "delay_seconds", "Newest live video: median delay from input to output"),
            )
        }
        self.capability_up = gauge(
            "jobtester_capability_up",
            "1 if the last scored job of a capability passed, 0 if it failed; only of what is tested",
            _CAPABILITY_LABELS,
        )
        self.capabilities_cut = gauge(
            "jobtester_capabilities_cut", "Capabilities without a series, because there are more than allowed"
        )
        self.skipped = counter("jobtester_jobs_skipped", "Planned jobs that were not sent", ["reason"])
        self.in_flight = gauge("jobtester_jobs_in_flight", "Jobs sent and not answered")
        self.attribution = counter("jobtester_attribution", "Results by how sure it is who served the job", ["kind"])
        self.deferred = counter("jobtester_jobs_deferred", "Jobs deferred to later in the tick", ["reason"])
        self.tick_duration = gauge("jobtester_tick_duration_seconds", "Duration of the newest tick")
        self.tick_started = gauge("jobtester_tick_started_timestamp_seconds", "When the newest tick started")
        self.tick_finished = gauge("jobtester_tick_finished_timestamp_seconds", "When a tick last finished")
        self.tick_running = gauge("jobtester_tick_running", "1 while a tick runs")
        self.tick_interval = gauge(
            "jobtester_tick_interval_seconds",
            "Time between ticks; with a cron schedule the longest of those around now",
        )
        self.tick_due = gauge("jobtester_next_tick_timestamp_seconds", "When the next tick is due by the schedule")
        self.ticks = counter("jobtester_ticks", "Ticks by how they ended", ["state"])
        self.ticks_missed = counter("jobtester_ticks_missed", "Scheduled ticks that did not run")
        self.runner_sessions_open = gauge(
            "jobtester_runner_sessions_open", "Sessions of live runners that are reserved, or may be"
        )
        self.runner_sessions = counter(
            "jobtester_runner_sessions", "Sessions of live runners by how they ended", ["outcome"]
        )
        self.runner_paid = counter(
            "jobtester_runner_paid_wei", "Wei paid for jobs of live runners, by the prices that they list"
        )
        self.orchestrators = gauge("jobtester_orchestrators", "Orchestrators found by the newest discovery")
        self.live_runners = gauge("jobtester_live_runners", "Live runners by state in the newest tick", ["state"])
        self.gateway_up = gauge("jobtester_gateway_up", "1 while a gateway answers", ["gateway"])
        self.outbox = gauge("jobtester_outbox_entries", "Stats by state of delivery", ["state"])
        self.outbox_oldest = gauge("jobtester_outbox_oldest_seconds", "Age of the oldest undelivered stat")
        self.stats_lost = gauge("jobtester_stats_lost", "Stats answered `ok` that are not stored, until they are")
        self.results_received = counter("jobtester_results_received", "Results of other testers", ["outcome"])
        self.events = counter("jobtester_gateway_events", "Events of gateways' sinks", ["outcome"])
        self.webhook_requests = counter("jobtester_webhook_requests", "Calls of /orchestrators", ["gateway"])
        self.config_reload_successful = gauge(
            "jobtester_config_reload_successful", "1 unless the newest config.toml was refused"
        )
        self.internal_errors = counter(
            "jobtester_internal_errors", "Units of work that ended in an unexpected error", ["component"]
        )
        self.build = gauge("jobtester_build_info", "The program's version", ["version"])
        self.build.labels(__version__).set(1)
        self.config_reload_successful.set(1)
        ProcessCollector(registry=registry)
        for component in COMPONENTS:
            self.internal_errors.labels(component)
        for reason in SKIP_REASONS:
            self.skipped.labels(reason)
        for state in STATES:
            self.live_runners.labels(state)
        for kind in ("proven", "presumed", "missing", "refuted"):
            self.attribution.labels(kind)
        for outcome in ("stopped", "left_open", "unknown", "abandoned"):
            self.runner_sessions.labels(outcome)
        for state in ("finished", "aborted", "failed", "suspect"):
            self.ticks.labels(state)
        for reason in ("busy", "not_sent", "unclear", "unproven"):
            self.deferred.labels(reason)
        for outcome in ("accepted", "repeated", "refused"):
            self.results_received.labels(outcome)
        for outcome in ("used", "ignored", "refused"):
            self.events.labels(outcome)

    def count_internal_error(self, component: str) -> None:
        """Count a crash in one of COMPONENTS."""
        self.internal_errors.labels(component).inc()

    def export_runners(self, statuses: Iterable[RunnerStatus]) -> None:
        """Count live runners by state."""
        counts = collections.Counter(status.state for status in statuses)
        for state in STATES:
            self.live_runners.labels(state).set(counts[state])

    def export_streaks(self, plan: Plan, streaks: Mapping[CapabilityKey, int]) -> None:
        """Set the ticks in a row without a score of a plan's jobs."""
        for job in plan.jobs:
            if job.key in streaks:
                self.unscored_ticks.labels(*capability_labels(job)).set(streaks[job.key])

    def export_capabilities(self, up: Mapping[tuple[str, ...], bool], limit: int) -> None:
        """Export which capabilities pass, at most `limit`; those that fail come first, for their alerts."""
        chosen = dict(sorted(up.items(), key=lambda item: (item[1], item[0]))[:limit])
        # One by one: a scrape in between must not find an empty list, which would end every alert.
        for labels in self._exported - chosen.keys():
            self.capability_up.remove(*labels)
        for labels, is_up in chosen.items():
            self.capability_up.labels(*labels).set(int(is_up))
        self._exported = set(chosen)
        self.capabilities_cut.set(len(up) - len(chosen))

    def start_series(self, slugs: Iterable[str], streaming_slugs: Iterable[str] = ()) -> None:
        """Start the series of each pipeline at 0; those of tokens only for `streaming_slugs`."""
        # A series that begins with its first event has no increase, so alerts would miss that.
        for slug in streaming_slugs:
            for warm in ("true", "false"):
                self.first_token.labels(slug, warm)
                self.token_rate.labels(slug, warm)
        for slug in slugs:
            for row in REASONS.values():
                if row.outcome is not Outcome.PASSED and "*" not in row.code:
                    self.failures.labels(slug, row.code)
            for warm in ("true", "false"):
                self.round_trip.labels(slug, warm)
                for outcome in Outcome:
                    self.jobs.labels(slug, outcome.value, warm)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(_RegionCollector(self.registry, self._region()))
