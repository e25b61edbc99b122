"""Lanes: one gateway with everything that belongs to it, as the runner drives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobtester.domain.jobs import Job, Pair
from jobtester.domain.orchestrators import Orchestrator
from jobtester.gateway.client import Client
from jobtester.gateway.events import EventLog
from jobtester.gateway.evidence import Evidence, MetricsReader
from jobtester.gateway.lease import Lease, Timing
from jobtester.gateway.targeting import Byoc, Query, Targeting, Webhook
from jobtester.gateway.trust import Trust
from jobtester.settings import Gateway


@dataclass(slots=True)
class Lane:
    """One gateway: how it is aimed, what proves who served, and whether it can be trusted in this tick.

    `aimed` counts the jobs it has taken that are not answered, by pair, `leaving` those that still wait for their turn.
    """

    settings: Gateway
    client: Client
    targeting: Targeting
    evidence: Evidence
    trust: Trust = field(default_factory=Trust)
    lost: bool = False
    aimed: Counter[Pair] = field(default_factory=Counter)
    leaving: int = 0

    @property
    def name(self) -> str:
        """Give the gateway's name."""
        return self.settings.name

    @property
    def serial(self) -> bool:
        """Tell whether one orchestrator's jobs have to be over before the next one's begin."""
        return isinstance(self.targeting, Webhook) and not self.targeting.lease.overlap

    @property
    def overlapping(self) -> bool:
        """Tell whether the lease may move on while jobs compute."""
        return isinstance(self.targeting, Webhook) and self.targeting.lease.overlap

    @property
    def usable(self) -> bool:
        """Tell whether it makes sense to send anything through this gateway now."""
        return not self.lost and not self.trust.lost

    def suits(self, job: Job) -> bool:
        """Tell whether this job may go through this gateway now: the same for all jobs of its pair.

        Where proof is needed, jobs of one (pipeline, model) do not run side by side: nobody could tell them apart.
        """
        if self.targeting.kind == "byoc" and not job.capability.byoc:
            return False
        if job.capability.byoc:
            return True
        careful = self.overlapping or (
            self.targeting.kind == "query" and self.evidence.available and not self.trust.earned
        )
        if not careful:
            return True
        return not self.aimed[job.pair] and self.evidence.separable(job.pair)

    @property
    def waits_for_turn(self) -> bool:
        """Tell whether a job waits for the lease already; taking another one would only bind it too early."""
        return self.overlapping and self.leaving > 0

    def took(self, job: Job) -> None:
        """Note that a job will go through this gateway."""
        self.aimed[job.pair] += 1
        self.leaving += 1

    def sent(self) -> None:
        """Note that a job that waited has left."""
        self.leaving -= 1

    def answered(self, job: Job) -> None:
        """Note that a job has its answer."""
        self.aimed[job.pair] -= 1

    async def begin(self, orchestrators: Sequence[Orchestrator]) -> None:
        """Start a tick on this lane."""
        self.trust, self.lost = Trust(), False
        self.aimed.clear()
        self.leaving = 0
        await self.evidence.begin(orchestrators)
        if isinstance(self.targeting, Webhook):
            lease = self.targeting.lease
            lease.know(orchestrators)
            lease.overlap = self.settings.overlap and self.evidence.available
            lease.open_tick()

    def refresh(self) -> None:
        """Stop overlapping where the evidence that it needs has gone away."""
        if self.overlapping and not self.evidence.available:
            self.run_alone()

    def run_alone(self) -> None:
        """Stop overlapping for the rest of the tick: what was set aside runs again, and its answer counts."""
        if isinstance(self.targeting, Webhook):
            self.targeting.lease.overlap = False

    def end(self) -> None:
        """End the tick on this lane."""
        if isinstance(self.targeting, Webhook):
            self.targeting.lease.close_tick()


def make(settings: Gateway) -> Lane:
    """Build the lane of a configured gateway; its client is not open yet."""
    client = Client(
        name=settings.name,
        url=settings.url,
        cli_url=settings.cli_url,
        token=settings.token.get_secret_value() if settings.token else None,
        verify_tls=settings.verify_tls,
        artifact_networks=tuple(settings.artifact_networks),
    )
    targeting: Targeting
    if settings.targeting == "webhook":
        timing = Timing(settings.retry_window, settings.settle, settings.after_disconnect, settings.min_asks)
        targeting = Webhook(Lease(timing, overlap=settings.overlap), client, first_ask_s=settings.first_ask)
    elif settings.targeting == "query":
        targeting = Query(settings.retry_window)
    else:
        targeting = Byoc()
    evidence = Evidence(
        settings.name,
        MetricsReader(client) if settings.metrics and settings.cli_url else None,
        EventLog(settings.evidence_wait) if settings.events else None,
    )
    return Lane(settings, client, targeting, evidence)
