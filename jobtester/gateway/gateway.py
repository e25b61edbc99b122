"""Gateways: one gateway with everything that belongs to it, as the runner drives it."""

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
from jobtester.gateway.targeting import ByocTargeting, QueryTargeting, Targeting, WebhookTargeting
from jobtester.gateway.trust import TrustCounter
from jobtester.settings.sections import GatewaySettings


@dataclass(slots=True)
class Gateway:
    """One gateway: how it is aimed, what proves who served, and whether it can be trusted in this tick.

    `aimed` counts the jobs it has taken that are not answered, by pair, `leaving` those that still wait for their turn.
    """

    settings: GatewaySettings
    client: GatewayClient
    targeting: Targeting
    evidence: EvidenceCollector
    trust: TrustCounter = field(default_factory=TrustCounter)
    is_down: bool = False
    in_flight: Counter[PipelineModel] = field(default_factory=Counter)
    waiting_to_send: int = 0

    @classmethod
    def from_settings(cls, settings: GatewaySettings) -> Self:
        """Build the gateway of a configured gateway; its client is not open yet."""
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
            targeting = WebhookTargeting(
                Lease(timing, overlap=settings.overlap), client, first_question_s=settings.first_ask
            )
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
        """Give the gateway's name."""
        return self.settings.name

    @property
    def is_serial(self) -> bool:
        """Tell whether one orchestrator's jobs have to be over before the next one's begin."""
        return isinstance(self.targeting, WebhookTargeting) and not self.targeting.lease.overlap

    @property
    def is_overlapping(self) -> bool:
        """Tell whether the lease may move on while jobs compute."""
        return isinstance(self.targeting, WebhookTargeting) and self.targeting.lease.overlap

    @property
    def is_usable(self) -> bool:
        """Tell whether it makes sense to send anything through this gateway now."""
        return not self.is_down and not self.trust.is_lost

    def accepts(self, job: Job) -> bool:
        """Tell whether this job may go through this gateway now: the same for all jobs of its pair.

        Where proof is needed, jobs of one (pipeline, model) do not run side by side: nobody could tell them apart.
        """
        if self.targeting.kind == "byoc" and not job.capability.byoc:
            return False
        if job.capability.byoc:
            return True
        careful = self.is_overlapping or (
            self.targeting.kind == "query" and self.evidence.is_available and not self.trust.is_earned
        )
        if not careful:
            return True
        return not self.in_flight[job.pipeline_model] and self.evidence.is_distinguishable(job.pipeline_model)

    @property
    def has_waiting_job(self) -> bool:
        """Tell whether a job waits for the lease already; taking another one would only bind it too early."""
        return self.is_overlapping and self.waiting_to_send > 0

    def on_taken(self, job: Job) -> None:
        """Note that a job will go through this gateway."""
        self.in_flight[job.pipeline_model] += 1
        self.waiting_to_send += 1

    def on_sent(self) -> None:
        """Note that a job that waited has left."""
        self.waiting_to_send -= 1

    def on_answered(self, job: Job) -> None:
        """Note that a job has its answer."""
        self.in_flight[job.pipeline_model] -= 1

    async def begin_tick(self, orchestrators: Sequence[Orchestrator]) -> None:
        """Start a tick on this gateway."""
        self.trust, self.is_down = TrustCounter(), False
        self.in_flight.clear()
        self.waiting_to_send = 0
        await self.evidence.begin_tick(orchestrators)
        if isinstance(self.targeting, WebhookTargeting):
            lease = self.targeting.lease
            lease.set_candidates(orchestrators)
            lease.overlap = self.settings.overlap and self.evidence.is_available
            lease.begin_tick()

    def update_overlap(self) -> None:
        """Stop overlapping where the evidence that it needs has gone away."""
        if self.is_overlapping and not self.evidence.is_available:
            self.disable_overlap()

    def disable_overlap(self) -> None:
        """Stop overlapping for the rest of the tick: what was set aside runs again, and its answer counts."""
        if isinstance(self.targeting, WebhookTargeting):
            self.targeting.lease.overlap = False

    def end_tick(self) -> None:
        """End the tick on this gateway."""
        if isinstance(self.targeting, WebhookTargeting):
            self.targeting.lease.end_tick()
