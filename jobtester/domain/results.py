"""Results: a job with its verdict, timings and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobtester.domain.attribution import Attribution
from jobtester.domain.jobs import Job
from jobtester.domain.reasons import Note, Verdict
from jobtester.domain.result_details import ResultDetails


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one job.

    `started_at` and `recorded_at` are UTC in Unix seconds. `round_trip_s` > 0; `artifact_s` is the time to fetch what
    the answer names, None where nothing was fetched. `request` and `response` are JSON texts, size-capped and free of
    secrets. `measures` are numbers by name (`first_token_s`, `tokens_per_s`). `deferred` counts how often the job was
    retried because the orchestrator was busy. `notes` are oddities of the answer that change no outcome. `details` are
    what only the result's own page shows.

    This is one row of the store, so it has as many fields as that has columns.
    """

    job: Job
    verdict: Verdict
    attribution: Attribution
    gateway: str
    targeting: str
    started_at: float
    round_trip_s: float
    status: int | None = None
    artifact_s: float | None = None
    request: str = "{}"
    response: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    deferred: int = 0
    recorded_at: float = 0.0
    notes: tuple[Note, ...] = ()
    details: ResultDetails = field(default_factory=ResultDetails, repr=False)

    @property
    def id(self) -> str:
        """Return the result's id, which is its job's: one job, one result."""
        return self.job.id
