"""Define the JSON of results, and of orchestrators with the history of their capabilities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Protocol, Self, TypeVar

from pydantic import Field

from jobtester.domain.attribution import AttributionKind
from jobtester.domain.reasons import REASONS, Fault, Outcome, Reason, find_reason
from jobtester.domain.results import Result
from jobtester.domain.runner_status import STATES, RunnerStatus
from jobtester.domain.units import format_wei
from jobtester.store.queries import CapabilityRow
from jobtester.store.results import ResultRow
from jobtester.store.skips import SkipRow
from jobtester.web.schemas.base import (
    Address,
    Count,
    Instant,
    KindText,
    OutcomeText,
    PageSchema,
    RunnerSchema,
    Schema,
    Seconds,
    Wei,
)

ReasonText = Annotated[
    str,
    Field(description=f"one of {', '.join(REASONS)}; check:* stands for check:<name>, and any HTTP status"),
]


class _HasOrchestrator(Protocol):
    @property
    def orchestrator(self) -> str: ...


_RowT = TypeVar("_RowT", bound=_HasOrchestrator)


class NoteSchema(Schema):
    """An oddity of an answer."""

    check: str
    note: str
    message: str


class ResultSchema(Schema):
    """A result as lists show it: without request, answer and evidence. Its fields are those of the public JSON."""

    id: str = Field(description="unique forever; travels as X-Request-ID")
    tick: str
    orchestrator: Address
    service_uri: str
    pipeline: str
    pipeline_name: str = Field(description="the name that the Leaderboard gets")
    model: str
    warm: bool
    outcome: OutcomeText
    reason: ReasonText
    message: str
    attribution: str = Field(
        description="how sure it is that the orchestrator served the job",
        json_schema_extra={"enum": [kind.value for kind in AttributionKind]},
    )
    gateway: str
    targeting: str
    started_at: Instant
    recorded_at: Instant
    round_trip_s: Seconds = Field(description="from handing the request to the socket to the last byte, seconds")
    artifact_s: Seconds | None
    status: int | None = Field(ge=0, description="the gateway's HTTP status, null where no answer came")
    measures: dict[str, float]
    notes: list[NoteSchema] = Field(description="oddities of the answer that are held against nobody")
    deferred: Count = Field(description="how often a busy orchestrator sent the job away before")
    estimated_price_wei: Wei | None
    kind: KindText
    runner: RunnerSchema | None = Field(description="how the orchestrator listed a live runner; null for others")

    @classmethod
    def read_fields(cls, row: ResultRow) -> dict[str, Any]:
        """Return the model's fields as a stored result has them."""
        values = super().read_fields(row)
        values["estimated_price_wei"] = format_wei(row.estimated_price_wei)
        values["runner"] = row.runner or None
        return values

    @classmethod
    def from_row(cls, row: ResultRow) -> Self:
        """Return the schema of a stored result."""
        return cls.model_validate(cls.read_fields(row))

    @classmethod
    def from_result(cls, result: Result) -> Self:
        """Return the schema of a result that was just measured."""
        return cls.model_validate(_flatten_result(result))


class ResultDetailSchema(ResultSchema):
    """A result with everything behind it."""

    evidence: list[str]
    fault: Fault
    meaning: str
    advice: str
    request: str = Field(description="JSON text, cut where too long, free of secrets")
    response: str = Field(description="the answer's text, cut; empty where not recorded")

    @classmethod
    def read_fields(cls, row: ResultRow) -> dict[str, Any]:
        """Return the model's fields as a stored result has them."""
        return super().read_fields(row) | _explain(row.reason, row.outcome)

    @classmethod
    def from_result(cls, result: Result) -> Self:
        """Return the schema of a result that was just measured."""
        verdict = result.verdict
        return cls.model_validate(_flatten_result(result) | _explain(verdict.code, verdict.outcome.value))


class ResultPageSchema(PageSchema[ResultSchema]):
    """A page of results."""


class PointSchema(Schema):
    """A result as a point of a capability's history."""

    id: str
    started_at: Instant
    round_trip_s: Seconds
    outcome: OutcomeText
    reason: ReasonText


class CapabilitySchema(Schema):
    """A capability of an orchestrator with its newest results."""

    service_uri: str
    pipeline: str
    model: str
    kind: KindText
    warm: bool
    unscored_streak: Count = Field(description="unscored results in a row, the newest last")
    newest: PointSchema
    recent: list[PointSchema] = Field(description="oldest first")


class LiveRunnerSchema(RunnerSchema):
    """A live runner as an orchestrator last listed it, tested or not."""

    service_uri: str
    app: str
    version: str
    state: str = Field(
        description="; ".join(f"{state}: {meaning}" for state, meaning in STATES.items()),
        json_schema_extra={"enum": list(STATES)},
    )
    ticks: Count = Field(description="for how many ticks in a row it has been in this state")
    listed_at: Instant = Field(description="when a tick last found it listed")

    @classmethod
    def read_fields(cls, row: RunnerStatus) -> dict[str, Any]:
        """Return the model's fields as the store has them."""
        return super().read_fields(row) | {"price_wei": format_wei(row.price_wei)}


class LastingSkipSchema(Schema):
    """A capability that the newest tick skipped; `pipeline` and `model` are empty for the whole orchestrator."""

    service_uri: str
    pipeline: str
    model: str
    kind: KindText
    reason: str
    note: str = Field(description="the reason of the [[pause]] table, for `paused`")
    since: Instant = Field(description="the start of the first tick in a row that skipped it")


class OrchestratorSchema(Schema):
    """An orchestrator with its capabilities that have results, its listed live runners, and what is not tested."""

    orchestrator: Address
    capabilities: list[CapabilitySchema]
    live_runners: list[LiveRunnerSchema]
    skipped: list[LastingSkipSchema]

    @classmethod
    def read_groups(
        cls, rows: Iterable[CapabilityRow], runners: Iterable[RunnerStatus] = (), skips: Iterable[SkipRow] = ()
    ) -> list[dict[str, Any]]:
        """Return the fields of each orchestrator that has a result or is skipped, by address."""
        tested, listed = _group_by_orchestrator(rows), _group_by_orchestrator(runners)
        skipped = _group_by_orchestrator(skips)
        return [
            cls.read_one(address, tested.get(address, ()), listed.get(address, ()), skipped.get(address, ()))
            for address in sorted(tested.keys() | skipped.keys())
        ]

    @classmethod
    def read_one(
        cls,
        address: str,
        rows: Iterable[CapabilityRow],
        runners: Iterable[RunnerStatus],
        skips: Iterable[SkipRow] = (),
    ) -> dict[str, Any]:
        """Return the fields of one orchestrator."""
        return {
            "orchestrator": address,
            "capabilities": [CapabilitySchema.read_fields(row) for row in rows],
            "live_runners": [LiveRunnerSchema.read_fields(status) for status in runners],
            "skipped": [LastingSkipSchema.read_fields(row) for row in skips],
        }

    @classmethod
    def from_rows(cls, rows: Iterable[CapabilityRow]) -> list[Self]:
        """Return one schema per orchestrator, of capabilities that are sorted by orchestrator."""
        return [cls.model_validate(values) for values in cls.read_groups(rows)]


class OrchestratorPageSchema(PageSchema[OrchestratorSchema]):
    """A page of orchestrators."""


def _group_by_orchestrator(rows: Iterable[_RowT]) -> dict[str, list[_RowT]]:
    groups: dict[str, list[_RowT]] = {}
    for row in rows:
        groups.setdefault(row.orchestrator, []).append(row)
    return groups


def explain_reason(code: str, outcome: str) -> Reason:
    """Return the row of the table of reasons; one without words for a code that only another version had."""
    try:
        return find_reason(code)
    except KeyError:
        return Reason(code, Outcome(outcome), Fault.UNKNOWN, "")


def _explain(code: str, outcome: str) -> dict[str, str]:
    reason = explain_reason(code, outcome)
    return {"fault": reason.fault, "meaning": reason.meaning, "advice": reason.advice}


def _flatten_result(result: Result) -> dict[str, Any]:
    job, verdict = result.job, result.verdict
    return {
        "id": result.id,
        "tick": job.tick,
        "orchestrator": job.orchestrator.address,
        "service_uri": job.target.service_uri,
        "pipeline": job.pipeline,
        "pipeline_name": job.pipeline_name,
        "model": job.model,
        "warm": job.warm,
        "outcome": verdict.outcome.value,
        "reason": verdict.code,
        "message": verdict.message,
        "attribution": result.attribution.kind.value,
        "evidence": result.attribution.evidence,
        "gateway": result.gateway,
        "targeting": result.targeting,
        "started_at": result.started_at,
        "recorded_at": result.recorded_at,
        "round_trip_s": result.round_trip_s,
        "artifact_s": result.artifact_s,
        "status": result.status,
        "measures": result.measures,
        "notes": [note.as_json() for note in result.notes],
        "deferred": result.deferred,
        "estimated_price_wei": job.price_wei,
        "kind": job.capability.kind.value,
        "runner": RunnerSchema.from_capability(job.capability),
        "request": result.request,
        "response": result.response,
    }
