"""Ports: what the runner hands things to, without knowing who stands behind."""

from __future__ import annotations

from typing import Protocol

from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.results import Result
from jobtester.gateway.evidence import EvidenceItem


class Recorder(Protocol):
    """Keeps results; each call returns when the result cannot be lost any more."""

    @property
    def is_waiting(self) -> bool:
        """Tell whether results wait because nothing can be kept now: then no job should begin."""
        ...

    def give_up(self) -> None:
        """Wait no longer: what cannot be kept raises StoreError."""
        ...

    async def record(self, result: Result) -> None:
        """Keep one result, and what has to be posted of it."""
        ...

    async def add_evidence(self, job_id: str, testimony: EvidenceItem) -> bool:
        """Add evidence that came too late for a result; tell whether the result was found."""
        ...


class TickObserver(Protocol):
    """Looks on while a tick runs; nothing it does may fail or wait."""

    def on_planned(self, plan: Plan) -> None:
        """See the plan before the first job."""
        ...

    def on_sent(self, job: Job, gateway: str) -> None:
        """See a job leave."""
        ...

    def on_deferred(self, job: Job, gateway: str, reason: str) -> None:
        """See a job put off to later in the tick."""
        ...

    def on_recorded(self, result: Result) -> None:
        """See a result that has been kept."""
        ...

    def on_skipped(self, skip: Skip) -> None:
        """See a planned job that will not be sent."""
        ...
