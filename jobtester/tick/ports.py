"""Ports: what the runner hands things to, without knowing who stands behind."""

from __future__ import annotations

from typing import Protocol

from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.results import Result
from jobtester.gateway.evidence import Testimony


class Recorder(Protocol):
    """Keeps results; each call returns when the result cannot be lost any more."""

    @property
    def waits(self) -> bool:
        """Tell whether results wait because nothing can be kept now: then no job should begin."""
        ...

    def give_up(self) -> None:
        """Wait no longer: what cannot be kept raises StoreError."""
        ...

    async def record(self, result: Result) -> None:
        """Keep one result, and what has to be posted of it."""
        ...

    async def amend(self, job_id: str, testimony: Testimony) -> bool:
        """Add evidence that came too late for a result; tell whether the result was found."""
        ...


class Watcher(Protocol):
    """Looks on while a tick runs; nothing it does may fail or wait."""

    def planned(self, plan: Plan) -> None:
        """See the plan before the first job."""
        ...

    def sent(self, job: Job, lane: str) -> None:
        """See a job leave."""
        ...

    def deferred(self, job: Job, lane: str, why: str) -> None:
        """See a job put off to later in the tick."""
        ...

    def recorded(self, result: Result) -> None:
        """See a result that has been kept."""
        ...

    def skipped(self, skip: Skip) -> None:
        """See a planned job that will not be sent."""
        ...
