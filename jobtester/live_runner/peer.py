"""The orchestrators themselves as the peer of a tick's jobs: each job goes straight to the runner that it tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urljoin

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Orchestrator, Target, parse_endpoint
from jobtester.gateway.evidence import EvidenceCollector
from jobtester.gateway.peer import JobPeer, Walk
from jobtester.gateway.targeting import JobLease, TargetingResult
from jobtester.gateway.trust import TrustCounter
from jobtester.live_runner.client import REDIRECTS, LiveRunnerClient
from jobtester.live_runner.discovery import RunnerDiscovery
from jobtester.live_runner.session_stopper import SessionStopper
from jobtester.live_runner.sessions import SessionKeeper
from jobtester.live_runner.signer import RemoteSigner
from jobtester.metrics import Metrics
from jobtester.settings.live_sections import LIVE_RUNNER, LiveRunnerSettings
from jobtester.store.runner_sessions import RunnerSessions


@dataclass(frozen=True, slots=True)
class DirectLease:
    """Needs to name nobody: the request goes to the orchestrator's own address."""

    service_uri: str
    runner_url: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def finish(self, exchange: Exchange) -> TargetingResult:
        """Count the connection to the advertised service URI as proof, unless it redirects to another host."""
        target = parse_endpoint(self.service_uri)
        if parse_endpoint(self.runner_url) != target:
            line = f"direct: the runner's URL {self.runner_url} is not at {self.service_uri}"
            return TargetingResult(Attribution(AttributionKind.REFUTED, (line,)))
        location = exchange.headers.get("location", "")
        if exchange.status in REDIRECTS and parse_endpoint(join_url(f"{self.runner_url}/", location)) != target:
            line = f"direct: {self.service_uri} sent the job on to {location[:200]}, which was not followed"
            return TargetingResult(Attribution(AttributionKind.REFUTED, (line,)))
        line = f"direct: the job went to {self.runner_url}, at the advertised service URI"
        return TargetingResult(Attribution(AttributionKind.PROVEN, (line,)))


class DirectTargeting:
    """Sends each job to its own orchestrator; jobs need not know of each other."""

    kind = "direct"

    @asynccontextmanager
    async def acquire(self, job: Job) -> AsyncIterator[JobLease]:
        """Wait for nothing: the address says who is meant."""
        assert job.capability.runner is not None
        yield DirectLease(job.target.service_uri, job.capability.runner.url)

    def release(self) -> None:
        """Do nothing: nobody is named between jobs."""


@dataclass(slots=True)
class LiveRunnerPeer(JobPeer):
    """Takes the jobs of live runners, of all orchestrators side by side.

    What one orchestrator does says nothing of the others, so no failure ends its use.
    """

    settings: LiveRunnerSettings
    client: LiveRunnerClient
    discovery: RunnerDiscovery
    sessions: SessionKeeper
    signer: RemoteSigner | None = None
    targeting: DirectTargeting = field(default_factory=DirectTargeting)
    evidence: EvidenceCollector = field(default_factory=lambda: EvidenceCollector(LIVE_RUNNER, None, None))
    trust: TrustCounter = field(default_factory=TrustCounter)
    is_down: bool = False
    _streaming: set[Target] = field(default_factory=set)

    name = LIVE_RUNNER
    is_direct = True

    @classmethod
    def from_settings(cls, settings: LiveRunnerSettings, journal: RunnerSessions, metrics: Metrics) -> Self:
        """Build what [live_runner] describes; open() comes before its first use."""
        client = LiveRunnerClient(tuple(settings.networks))
        discovery = RunnerDiscovery(
            client,
            settings.timeout,
            settings.max_runners,
            settings.parallel,
            urls=settings.urls,
            directories=settings.directories,
        )
        sessions = SessionKeeper(client, journal, SessionStopper(client, journal, metrics), settings.max_session)
        signer_url = settings.payment.signer_url
        signer = RemoteSigner(signer_url.get_secret_value()) if signer_url is not None else None
        return cls(settings, client, discovery, sessions, signer)

    async def open(self) -> None:
        """Open the connections to orchestrators and to the signer; call close() when done."""
        await self.client.open()
        if self.signer is not None:
            await self.signer.open()

    async def close(self) -> None:
        """Wait for the sessions that are being stopped, and close every connection."""
        await self.sessions.stopper.close()
        await self.client.close()
        if self.signer is not None:
            await self.signer.close()

    def accepts(self, job: Job) -> bool:
        """Return True for jobs of live runners; of video streams one for each orchestrator, and not too many."""
        if job.capability.runner is None:
            return False
        return not job.is_video or (job.target not in self._streaming and len(self._streaming) < self.settings.streams)

    def walk(self, job: Job) -> Walk:
        """Return how a job is carried: straight to its orchestrator."""
        del job
        return Walk.LIVE_RUNNER

    def on_taken(self, job: Job) -> None:
        """Count a video stream."""
        if job.is_video:
            self._streaming.add(job.target)

    def on_answered(self, job: Job) -> None:
        """Count a video stream as over."""
        if job.is_video:
            self._streaming.discard(job.target)

    async def begin_tick(self, orchestrators: Sequence[Orchestrator]) -> None:
        """Begin a tick: nothing is left of the one before, sessions included."""
        self.trust, self.is_down = TrustCounter(), False
        self._streaming.clear()
        await self.evidence.begin_tick(orchestrators)
        await self.sessions.stopper.stop_left_over()


def join_url(base: str, url: str) -> str:
    """Return the whole URL of what may be relative to `base`; what is no URL stays as it is."""
    try:
        return urljoin(base, url)
    except ValueError:  # brackets that do not match
        return url
