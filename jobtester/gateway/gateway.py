"""One gateway with everything that belongs to it, as a tick uses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from jobtester.domain.jobs import Job, PipelineModel
from jobtester.domain.orchestrators import Orchestrator
from jobtester.gateway.client import GatewayClient
from jobtester.gateway.evidence import EvidenceCollector
from jobtester.gateway.gateway_events import EventLog
from jobtester.gateway.gateway_metrics import MetricsReader
from jobtester.gateway.lease import Lease, LeaseTiming
from jobtester.gateway.peer import JobPeer, Walk
from jobtester.gateway.targeting import ByocTargeting, QueryTargeting, Targeting, WebhookTargeting
from jobtester.gateway.trust import TrustCounter
from jobtester.settings.sections import GatewaySettings

TESTER_FLAGS = "-aiTesterGateway=true -aiSessionTimeout=0 -webhookRefreshInterval=0"


@dataclass(slots=True)
class Gateway(JobPeer):
    """One gateway: how it is targeted, what proves who served, and whether it can be trusted in this tick.

    `in_flight` counts the jobs that it has taken and not answered, `waiting_to_send` those that wait for their turn.
    """

    settings: GatewaySettings
    client: GatewayClient
    targeting: Targeting
    evidence: EvidenceCollector
    trust: TrustCounter = field(default_factory=TrustCounter)
    is_down: bool = False
    in_flight: Counter[PipelineModel] = field(default_factory=Counter)
    waiting_to_send: int = 0
    streams_in_flight: int = 0

    @classmethod
    def from_settings(cls, settings: GatewaySettings) -> Self:
        """Build a configured gateway; its client is not open yet."""
        client = GatewayClient(
            name=settings.name,
            url=settings.url,
            cli_url=settings.cli_url,
            token=settings.token.get_secret_value() if settings.token else None,
            verify_tls=settings.verify_tls,
            artifact_networks=tuple(settings.artifact_networks),
        )
        targeting: Targeting
        if settings.targeting == "webhook":
            timing = LeaseTiming(settings.retry_window, settings.settle, settings.after_disconnect, settings.min_asks)
            lease = Lease(timing, overlap=settings.overlap)
            targeting = WebhookTargeting(lease, client, first_question_s=settings.first_ask)
        elif settings.targeting == "query":
            targeting = QueryTargeting(settings.retry_window)
        else:
            targeting = ByocTargeting()
        evidence = EvidenceCollector(
            settings.name,
            MetricsReader(client) if settings.metrics and settings.cli_url else None,
            EventLog(settings.evidence_wait) if settings.events else None,
        )
        return cls(settings, client, targeting, evidence)

    @property
    def name(self) -> str:
        """The configured name."""
        return self.settings.name

    @property
    def label(self) -> str:
        """Return what it is called among other peers: the word is not said twice for one that is named so."""
        return self.name if self.name == "gateway" else f"gateway {self.name}"

    @property
    def lease(self) -> Lease | None:
        """The lease of a webhook gateway; None for any other."""
        return self.targeting.lease if isinstance(self.targeting, WebhookTargeting) else None

    @property
    def is_serial(self) -> bool:
        """Whether one orchestrator's jobs have to be over before the next one's begin."""
        return self.lease is not None and not self.lease.overlap

    @property
    def is_overlapping(self) -> bool:
        """Whether the lease may move on while jobs compute."""
        return self.lease is not None and self.lease.overlap

    @property
    def is_usable(self) -> bool:
        """Whether it makes sense to send anything through this gateway now."""
        return not self.is_down and not self.trust.is_lost

    @property
    def has_waiting_job(self) -> bool:
        """Whether a job waits for the lease already; taking another one would only bind it too early."""
        return self.is_overlapping and self.waiting_to_send > 0

    def serves(self, job: Job) -> bool:
        """Return True if jobs like this one may go through this gateway at all."""
        if job.capability.runner is not None:  # the orchestrator serves it without any gateway
            return False
        if job.capability.byoc:
            return True
        if self.targeting.kind == "byoc":
            return False
        return self.settings.streams > 0 if job.capability.is_live_video else True

    def accepts(self, job: Job) -> bool:
        """Return True if this job may go through this gateway now; the same for all jobs of its pipeline and model."""
        if not self.serves(job):
            return False
        if job.capability.byoc:
            return True
        if job.capability.is_live_video:  # each stream's own status proves who serves it
            return self.streams_in_flight < self.settings.streams
        is_new_query = self.targeting.kind == "query" and self.evidence.is_available and not self.trust.is_earned
        if not (self.is_overlapping or is_new_query):
            return True
        # Metrics name a pipeline and a model, not a job: of two side by side nobody could tell who served which.
        return not self.in_flight[job.pipeline_model] and self.evidence.is_distinguishable(job.pipeline_model)

    def walk(self, job: Job) -> Walk:
        """Return how a job that it accepts is carried."""
        return Walk.LIVE_VIDEO if job.capability.is_live_video else Walk.GATEWAY

    def on_taken(self, job: Job) -> None:
        """Count a job that will go through this gateway."""
        self.in_flight[job.pipeline_model] += 1
        self.streams_in_flight += job.capability.is_live_video
        self.waiting_to_send += 1

    def on_sent(self) -> None:
        """Count a job that no longer waits for its turn."""
        self.waiting_to_send -= 1

    def on_answered(self, job: Job) -> None:
        """Count a job that has its answer."""
        self.in_flight[job.pipeline_model] -= 1
        self.streams_in_flight -= job.capability.is_live_video

    async def begin_tick(self, orchestrators: Sequence[Orchestrator]) -> None:
        """Begin a tick in which these orchestrators may be named."""
        self.trust, self.is_down = TrustCounter(), False
        self.in_flight.clear()
        self.streams_in_flight = 0
        self.waiting_to_send = 0
        await self.evidence.begin_tick(orchestrators)
        if self.lease is not None:
            self.lease.set_candidates(orchestrators)
            self.lease.overlap = self.settings.overlap and self.evidence.is_available
            self.lease.begin_tick()

    def update_overlap(self) -> None:
        """Stop overlapping if the evidence that it needs has gone away."""
        if self.is_overlapping and not self.evidence.is_available:
            self.disable_overlap()

    def disable_overlap(self) -> None:
        """Stop overlapping for the rest of the tick: unproven jobs run again, and their answers count."""
        if self.lease is not None:
            self.lease.overlap = False

    def end_tick(self) -> None:
        """End the tick: every candidate is named again."""
        if self.lease is not None:
            self.lease.end_tick()
