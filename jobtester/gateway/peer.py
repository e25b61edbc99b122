"""Define what takes the jobs of a tick: a gateway, or the orchestrators themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from jobtester.domain.exchanges import Exchange, OutgoingRequest
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Orchestrator
from jobtester.gateway.evidence import EvidenceCollector
from jobtester.gateway.job_sender import JobSender
from jobtester.gateway.result_files import ResultFile
from jobtester.gateway.targeting import Targeting
from jobtester.gateway.trust import TrustCounter


class Walk(StrEnum):
    """The ways in which a job is carried; jobtester.tick has a module for each."""

    GATEWAY = "gateway"
    LIVE_RUNNER = "live-runner"
    LIVE_VIDEO = "live-video"


class PeerClient(Protocol):
    """Sends timed jobs to a peer, and fetches the files that its answers name."""

    @property
    def url(self) -> str:
        """Return where jobs go, as people are shown it."""
        ...

    @property
    def sender(self) -> JobSender:
        """Return what holds the requests of its jobs, and can end them."""
        ...

    async def send(self, request: OutgoingRequest) -> Exchange:
        """Send one job, and wait for the last byte of its response; never raises for what the network does."""
        ...

    async def fetch(self, url: str, *, timeout_s: float, max_bytes: int) -> ResultFile:
        """Fetch a file that a response names; never raises for what it meets."""
        ...

    async def is_alive(self) -> bool:
        """Return True if the peer as a whole can take jobs."""
        ...


class JobPeer:
    """Takes jobs of a tick: a gateway, or the orchestrators themselves.

    What has a body here holds for a peer whose jobs go side by side without knowing of each other. A gateway that names
    one orchestrator at a time overrides it. `is_down` is set while the peer takes no jobs, `trust` counts this tick's
    attributions.
    """

    client: PeerClient
    targeting: Targeting
    evidence: EvidenceCollector
    trust: TrustCounter
    is_down: bool

    @property
    @abstractmethod
    def name(self) -> str:
        """Return what results call it."""

    @abstractmethod
    def accepts(self, job: Job) -> bool:
        """Return True if this job may go this way now."""

    @abstractmethod
    def walk(self, job: Job) -> Walk:
        """Return how a job that it accepts is carried."""

    @abstractmethod
    async def begin_tick(self, orchestrators: Sequence[Orchestrator]) -> None:
        """Begin a tick in which these orchestrators may be named."""

    def serves(self, job: Job) -> bool:
        """Return True if jobs like this one may go this way at all, whatever its state is now."""
        return self.accepts(job)

    @property
    def is_direct(self) -> bool:
        """Whether jobs go to the orchestrators themselves, so that no gateway's state matters to them."""
        return False

    @property
    def is_usable(self) -> bool:
        """Whether it makes sense to send anything through it now."""
        return not self.is_down

    @property
    def is_serial(self) -> bool:
        """Whether one orchestrator's jobs have to be over before the next one's begin."""
        return False

    @property
    def has_waiting_job(self) -> bool:
        """Whether a job waits for its turn already, so that taking another one would only bind it too early."""
        return False

    def on_taken(self, job: Job) -> None:
        """Count a job that will go this way."""

    def on_sent(self) -> None:
        """Count a job that no longer waits for its turn."""

    def on_answered(self, job: Job) -> None:
        """Count a job that has its answer."""

    def update_overlap(self) -> None:
        """Stop overlapping jobs if the evidence that this needs has gone away."""

    def disable_overlap(self) -> None:
        """Stop overlapping jobs for the rest of the tick."""

    def end_tick(self) -> None:
        """End the tick."""
