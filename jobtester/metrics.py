"""Metrics: what the daemon tells Prometheus, in a registry of its own."""

from __future__ import annotations

from collections.abc import Iterable
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

from jobtester import __version__
from jobtester.domain.plan import SKIP_REASONS
from jobtester.domain.reasons import REASONS, Outcome
from jobtester.errors import COMPONENTS

disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = CONTENT_TYPE_LATEST
MAX_SERIES = 3_000
_BUCKETS = (0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class _Latest(Gauge):
    """A gauge whose labels come from the network: only the series that were set of late are kept."""

    def labels(self, *values: Any, **named: Any) -> _Latest:
        """Give a series, and let go of the one that was not asked for the longest, if there are too many."""
        known: dict[tuple[str, ...], None] = self.__dict__.setdefault("known", {})
        key = tuple(map(str, values))
        known.pop(key, None)
        known[key] = None
        if len(known) > MAX_SERIES:
            oldest = next(iter(known))
            del known[oldest]
            self.remove(*oldest)
        return super().labels(*values, **named)


class Metrics:
    """Every series of one daemon. Labels come from bounded sets: pipelines, reason codes, states; never free text."""

    def __init__(self) -> None:
        """Register everything; label sets that are known start at 0."""
        own = self.registry = CollectorRegistry()
        self.jobs = Counter("jobtester_jobs", "Jobs settled", ["pipeline", "outcome", "warm"], registry=own)
        self.failures = Counter(
            "jobtester_job_failures", "Jobs that failed or stayed unscored", ["pipeline", "reason"], registry=own
        )
        self.answer_notes = Counter(
            "jobtester_answer_notes",
            "Oddities of answers that are held against nobody",
            ["check", "note"],
            registry=own,
        )
        self.round_trip = Histogram(
            "jobtester_round_trip_seconds",
            "From handing a job to the gateway to the last byte of its answer; passed jobs",
            ["pipeline", "warm"],
            buckets=_BUCKETS,
            registry=own,
        )
        self.first_token = Histogram(
            "jobtester_first_token_seconds",
            "From handing a job to the gateway to the first token of a streamed answer; passed jobs",
            ["pipeline", "warm"],
            buckets=_BUCKETS,
            registry=own,
        )
        self.token_rate = Histogram(
            "jobtester_tokens_per_second",
            "How fast passed jobs wrote: from the first token where the answer was streamed, else over the round trip",
            ["pipeline", "warm"],
            buckets=_RATES,
            registry=own,
        )
        self.last_success = _Latest(
            "jobtester_last_success_timestamp_seconds",
            "When a job of this kind passed last",
            ["orchestrator", "pipeline", "model"],
            registry=own,
        )
        self.unscored_ticks = _Latest(
            "jobtester_unscored_ticks",
            "Ticks in a row without a score; 0 after one with a score",
            ["orchestrator", "pipeline", "model"],
            registry=own,
        )
        self.skipped = Counter("jobtester_jobs_skipped", "Planned jobs that were not sent", ["reason"], registry=own)
        self.in_flight = Gauge("jobtester_jobs_in_flight", "Jobs sent and not answered", registry=own)
        self.attribution = Counter(
            "jobtester_attribution", "Results by what is known of who served", ["kind"], registry=own
        )
        self.deferred = Counter(
            "jobtester_jobs_deferred", "Jobs deferred to later in the tick", ["reason"], registry=own
        )
        self.tick_duration = Gauge("jobtester_tick_duration_seconds", "How long the newest tick took", registry=own)
        self.tick_started = Gauge(
            "jobtester_tick_started_timestamp_seconds", "When the newest tick began", registry=own
        )
        self.tick_finished = Gauge(
            "jobtester_tick_finished_timestamp_seconds", "When a tick was last completed", registry=own
        )
        self.tick_running = Gauge("jobtester_tick_running", "1 while a tick runs", registry=own)
        self.tick_interval = Gauge(
            "jobtester_tick_interval_seconds",
            "The time between ticks; with a cron schedule the longest of those around now",
            registry=own,
        )
        self.tick_due = Gauge(
            "jobtester_next_tick_timestamp_seconds", "When the next tick is due by the schedule", registry=own
        )
        self.ticks = Counter("jobtester_ticks", "Ticks by how they ended", ["state"], registry=own)
        self.ticks_missed = Counter("jobtester_ticks_missed", "Scheduled ticks that did not run", registry=own)
        self.orchestrators = Gauge(
            "jobtester_orchestrators", "Orchestrators found by the newest discovery", registry=own
        )
        self.gateway_up = Gauge("jobtester_gateway_up", "1 while a gateway answers", ["gateway"], registry=own)
        self.outbox = Gauge("jobtester_outbox_entries", "Stats by how far they got", ["state"], registry=own)
        self.outbox_oldest = Gauge("jobtester_outbox_oldest_seconds", "Age of the oldest stat that waits", registry=own)
        self.stats_lost = Gauge(
            "jobtester_stats_lost", "Stats answered `ok` that are not stored, until they are", registry=own
        )
        self.results_received = Counter(
            "jobtester_results_received", "Results of other testers", ["outcome"], registry=own
        )
        self.events = Counter("jobtester_gateway_events", "Events of gateways' sinks", ["outcome"], registry=own)
        self.webhook_requests = Counter(
            "jobtester_webhook_requests", "Calls of /orchestrators", ["gateway"], registry=own
        )
        self.config_reload_successful = Gauge(
            "jobtester_config_reload_successful", "1 unless the newest config.toml was refused", registry=own
        )
        self.internal_errors = Counter(
            "jobtester_internal_errors", "Units of work that ended in an unexpected error", ["component"], registry=own
        )
        self.build = Gauge("jobtester_build_info", "The program's version", ["version"], registry=own)
        self.build.labels(__version__).set(1)
        self.config_reload_successful.set(1)
        ProcessCollector(registry=own)
        for component in COMPONENTS:
            self.internal_errors.labels(component)
        for reason in SKIP_REASONS:
            self.skipped.labels(reason)
        for kind in ("proven", "presumed", "missing", "refuted"):
            self.attribution.labels(kind)
        for state in ("finished", "aborted", "failed", "suspect"):
            self.ticks.labels(state)
        for reason in ("busy", "not_sent", "unclear", "unproven"):
            self.deferred.labels(reason)
        for answer in ("accepted", "repeated", "refused"):
            self.results_received.labels(answer)
        for what in ("used", "ignored", "refused"):
            self.events.labels(what)

    def count_internal_error(self, component: str) -> None:
        """Count a crash of one of COMPONENTS."""
        self.internal_errors.labels(component).inc()

    def start_series(self, slugs: Iterable[str], streaming_slugs: Iterable[str] = ()) -> None:
        """Start the series of each pipeline at 0, and the tokens' of those that may stream what they write."""
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
                for came_to in Outcome:
                    self.jobs.labels(slug, came_to.value, warm)

    def render(self) -> bytes:
        """Write everything in Prometheus' text format."""
        return generate_latest(self.registry)
