"""Define the one JSON shape of results, ticks, plans and outbox entries.

The API, its OpenAPI document, `--json` of the commands, server-sent events and the notification all use these models.
Instants are Unix seconds (UTC), durations are seconds, prices are wei as decimal text because they outgrow the numbers
of JSON readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import orjson
import pydantic_core
from pydantic import BaseModel, ConfigDict, Field

from jobtester.domain.attribution import AttributionKind
from jobtester.domain.plan import Plan
from jobtester.domain.reasons import REASONS, Fault, Outcome, Reason, find_reason
from jobtester.domain.results import Result
from jobtester.domain.tick_report import TickReport
from jobtester.domain.units import format_wei
from jobtester.store.outbox import STATES, OutboxEntry
from jobtester.store.queries import CapabilityRow, ExternalResultRow
from jobtester.store.results import ResultRow
from jobtester.store.ticks import TickRow
from jobtester.web.context import ProgressView

ItemT = TypeVar("ItemT")

Count = Annotated[int, Field(ge=0)]
Counts = dict[str, Count]
Instant = Annotated[float, Field(description="Unix seconds, UTC")]
Seconds = Annotated[float, Field(ge=0, description="seconds")]
Address = Annotated[str, Field(description="Ethereum address, lower-case")]
Wei = Annotated[
    str, Field(coerce_numbers_to_str=True, pattern="^[0-9]+$", description="wei as decimal text: it outgrows numbers")
]
# The store may hold values that another version wrote, so the lists of values are documented but not enforced.
OutcomeText = Annotated[str, Field(json_schema_extra={"enum": [outcome.value for outcome in Outcome]})]
ReasonText = Annotated[
    str,
    Field(description=f"one of {', '.join(REASONS)}; check:* stands for check:<name>, and any HTTP status"),
]


class Schema(BaseModel):
    """Base of all models: built from attributes of the domain's objects, complete in its JSON Schema."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_serialization_defaults_required=True,
        json_schema_extra={"additionalProperties": False},
    )

    @classmethod
    def values_of(cls, row: Any) -> dict[str, Any]:
        """Return the model's fields as `row` has them, ready for orjson or for validation.

        Lists of hundreds of rows are written from these values: the store has just read what this program wrote, and
        validating it once more takes three times as long as writing it.
        """
        return {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}

    def to_json(self, *, indent: bool = False) -> bytes:
        """Return the model as JSON in UTF-8, in one line unless `indent` is set."""
        return pydantic_core.to_json(self, indent=2 if indent else None, inf_nan_mode="null")


class ErrorSchema(Schema):
    """A refusal or failure of a request."""

    error: str = Field(min_length=1, description="what to change")


class PageSchema(Schema, Generic[ItemT]):
    """A page of a list."""

    items: list[ItemT]
    next: str | None = Field(None, description="the cursor of the next page, null on the last")


class AcceptedSchema(Schema):
    """The answer to an order that is carried out later."""

    state: Literal["accepted"] = "accepted"


class OpenApiSchema(Schema):
    """The description of the API."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})


class NoteSchema(Schema):
    """An oddity of an answer."""

    check: str
    note: str
    message: str


class ResultSchema(Schema):
    """A result as lists show it: without request, answer and evidence."""

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

    @classmethod
    def values_of(cls, row: ResultRow) -> dict[str, Any]:
        """Return the model's fields as a stored result has them."""
        values = dict(zip(_RESULT_FIELDS, _result_fields(row), strict=True))
        values["estimated_price_wei"] = format_wei(row.estimated_price_wei)
        return values

    @classmethod
    def from_row(cls, row: ResultRow) -> Self:
        """Return the schema of a stored result."""
        return cls.model_validate(cls.values_of(row))

    @classmethod
    def from_result(cls, result: Result) -> Self:
        """Return the schema of a result that was just measured."""
        return cls.model_validate(_result_values(result))


_RESULT_FIELDS = tuple(ResultSchema.model_fields)
_result_fields = attrgetter(*_RESULT_FIELDS)


class ResultDetailSchema(ResultSchema):
    """A result with everything behind it."""

    evidence: list[str]
    fault: Fault
    meaning: str
    advice: str
    request: str = Field(description="JSON text, cut where too long, free of secrets")
    response: str = Field(description="the answer's text, cut; empty where not kept")

    @classmethod
    def values_of(cls, row: ResultRow) -> dict[str, Any]:
        """Return the model's fields as a stored result has them."""
        own = {"evidence": row.evidence, "request": row.request, "response": row.response}
        return super().values_of(row) | own | _explanation(row.reason, row.outcome)

    @classmethod
    def from_result(cls, result: Result) -> Self:
        """Return the schema of a result that was just measured."""
        verdict = result.verdict
        return cls.model_validate(_result_values(result) | _explanation(verdict.code, verdict.outcome.value))


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
    warm: bool
    unscored_streak: Count = Field(description="unscored results in a row, the newest last")
    newest: PointSchema
    recent: list[PointSchema] = Field(description="oldest first")


class OrchestratorSchema(Schema):
    """An orchestrator with its capabilities."""

    orchestrator: Address
    capabilities: list[CapabilitySchema]

    @classmethod
    def values_of_rows(cls, rows: Iterable[CapabilityRow]) -> list[dict[str, Any]]:
        """Return one orchestrator's fields after the other, of capabilities that are sorted by orchestrator."""
        return [
            {"orchestrator": address, "capabilities": [CapabilitySchema.values_of(row) for row in group]}
            for address, group in groupby(rows, key=lambda row: row.orchestrator)
        ]

    @classmethod
    def from_rows(cls, rows: Iterable[CapabilityRow]) -> list[Self]:
        """Return one schema per orchestrator, of capabilities that are sorted by orchestrator."""
        return [cls.model_validate(values) for values in cls.values_of_rows(rows)]


class OrchestratorPageSchema(PageSchema[OrchestratorSchema]):
    """A page of orchestrators."""


class TickReportSchema(Schema):
    """A tick's job report. A field that an older version did not report is zero or empty."""

    problem: str = ""
    orchestrators: Count = 0
    planned: Count = 0
    settled: Count = 0
    outcomes: Counts = {}
    reasons: Counts = {}
    attribution: Counts = {}
    pipelines: dict[str, Counts] = {}
    warmth: dict[str, Counts] = Field({}, description="outcomes by what was advertised, warm or cold")
    skipped: Counts = {}
    deferred: Counts = {}
    estimated_price_wei: Wei = "0"
    work_s: Seconds = 0.0
    longest_chain_s: Seconds = Field(0.0, description="the time that the busiest orchestrator's jobs took")


class TickSchema(Schema):
    """A tick with its job report; the running tick has the report so far."""

    id: str
    state: Literal["running", "finished", "aborted", "failed", "suspect"]
    trigger: str
    seed: int
    started_at: Instant
    finished_at: Instant | None
    report: TickReportSchema | None = Field(description="null for a tick that was cut off before it could report")

    @classmethod
    def from_row(cls, row: TickRow, running: TickReport | None = None) -> Self:
        """Return the schema of a stored tick, with the report of `running` if that is the same tick."""
        report = row.report or None
        if report is None and running is not None and running.tick == row.id:
            report = running.as_json()
        return cls(
            id=row.id,
            state=row.state,
            trigger=row.trigger,
            seed=row.seed,
            started_at=row.started_at,
            finished_at=row.finished_at,
            report=TickReportSchema.model_validate(report) if report is not None else None,
        )

    @classmethod
    def from_report(cls, report: TickReport) -> Self:
        """Return the schema of a tick that has just ended or still runs."""
        values = report.as_json()
        return cls.model_validate(values | {"id": report.tick, "report": values})


class SlowResultSchema(Schema):
    """One of a tick's slowest results."""

    id: str
    orchestrator: Address
    pipeline: str
    model: str
    round_trip_s: Seconds


class TickDetailSchema(TickSchema):
    """A tick with its job report and its slowest results."""

    slowest: list[SlowResultSchema] = []

    @classmethod
    def from_row(
        cls, row: TickRow, running: TickReport | None = None, slowest: Iterable[tuple[str, str, str, str, float]] = ()
    ) -> Self:
        """Return the schema of a stored tick, with its slowest results as (id, address, pipeline, model, seconds)."""
        tick = TickSchema.from_row(row, running)
        fields = tuple(SlowResultSchema.model_fields)
        return cls(
            **dict(tick),
            slowest=[SlowResultSchema.model_validate(dict(zip(fields, values, strict=True))) for values in slowest],
        )


class TickPageSchema(PageSchema[TickSchema]):
    """A page of ticks."""


class InFlightSchema(Schema):
    """A job that was sent and is not answered yet."""

    id: str
    orchestrator: Address
    pipeline: str
    model: str
    gateway: str
    sent_at: Instant


class ProgressSchema(Schema):
    """The newest tick since the tester was started, as it goes."""

    running: bool = False
    tick: str = ""
    planned: Count = 0
    settled: Count = 0
    outcomes: Counts = {}
    in_flight: list[InFlightSchema] = []

    @classmethod
    def from_row(cls, row: TickRow) -> Self:
        """Return the schema of a stored tick that has ended."""
        report = TickReportSchema.model_validate(row.report)
        return cls(tick=row.id, planned=report.planned, settled=report.settled, outcomes=report.outcomes)

    @classmethod
    def from_progress(cls, progress: ProgressView, max_in_flight: int | None = None) -> Self:
        """Return the schema of a tick's progress with at most `max_in_flight` of the jobs in flight."""
        report = progress.report
        return cls(
            running=report.finished_at is None,
            tick=report.tick,
            planned=report.planned,
            settled=report.settled,
            outcomes={outcome.value: report.outcomes[outcome] for outcome in Outcome},
            in_flight=[
                InFlightSchema(
                    id=job.id,
                    orchestrator=job.orchestrator.address,
                    pipeline=job.pipeline,
                    model=job.model,
                    gateway=gateway,
                    sent_at=sent_at,
                )
                for job, gateway, sent_at in list(progress.in_flight.values())[:max_in_flight]
            ],
        )


class LiveSchema(Schema):
    """What the overview's stream of server-sent events carries."""

    next_tick_at: Instant | None
    progress: ProgressSchema | None = Field(description="the newest tick since the tester was started")


class PeerSchema(Schema):
    """A gateway, the discovery or the Leaderboard as it was last seen."""

    ok: bool
    checked: bool = Field(True, description="false if it was not asked yet")
    problem: str = ""


class StatusSchema(LiveSchema):
    """The tester at a glance."""

    version: str
    region: str
    simulated: bool = Field(description="the network under test is made up")
    peers: dict[str, PeerSchema]
    outbox: Counts = Field(description="stats by state")


class OutboxEntrySchema(Schema):
    """A stat on its way to the Leaderboard."""

    number: Count = Field(description="names the entry for `jobtester outbox retry` and `drop`")
    result: str
    tick: str
    gateway: str
    state: str = Field(json_schema_extra={"enum": list(STATES)})
    orchestrator: str
    pipeline_name: str
    model: str
    created_at: Instant
    due_at: Instant
    attempts: Count
    first_sent_at: Instant | None
    last_sent_at: Instant | None
    settled_at: Instant | None
    problem: str
    maybe_double: bool
    stat: dict[str, Any] = Field(description="exactly what the Leaderboard gets")

    @classmethod
    def values_of(cls, row: OutboxEntry) -> dict[str, Any]:
        """Return the model's fields as an outbox entry has them."""
        renamed = {"number": row.seq, "pipeline_name": row.pipeline, "stat": orjson.loads(row.body)}
        return super().values_of(row) | renamed

    @classmethod
    def from_entry(cls, entry: OutboxEntry) -> Self:
        """Return the schema of an outbox entry."""
        return cls.model_validate(cls.values_of(entry))


class OutboxPageSchema(PageSchema[OutboxEntrySchema]):
    """A page of outbox entries, with the number of stats by state."""

    counts: Counts


class ExternalResultSchema(Schema):
    """A result of another tester."""

    id: str
    received_at: Instant
    source: str
    kind: str
    state: str = Field(description="how far its stat got; empty where that has been forgotten")
    stat: dict[str, Any]

    @classmethod
    def from_row(cls, row: ExternalResultRow) -> Self:
        """Return the schema of a stored result of another tester."""
        return cls.model_validate(cls.values_of(row))

    @classmethod
    def values_of(cls, row: ExternalResultRow) -> dict[str, Any]:
        """Return the model's fields as a stored result of another tester has them."""
        return super().values_of(row) | {"stat": orjson.loads(row.stat)}


class ExternalResultPageSchema(PageSchema[ExternalResultSchema]):
    """A page of results of other testers."""


class PlannedJobSchema(Schema):
    """A job that a tick would send."""

    orchestrator: Address
    service_uri: str
    pipeline: str
    pipeline_name: str
    model: str
    warm: bool
    timeout_s: Seconds
    estimated_price_wei: Wei | None


class SkipSchema(Schema):
    """A capability that a tick would not test."""

    orchestrator: Address
    service_uri: str
    pipeline: str
    model: str
    reason: str


class PlanSchema(Schema):
    """The jobs of a tick in their order, and what it skips."""

    jobs: list[PlannedJobSchema]
    skipped: list[SkipSchema]
    estimated_price_wei: Wei

    @classmethod
    def from_plan(cls, plan: Plan) -> Self:
        """Return the schema of a plan."""
        jobs = [
            PlannedJobSchema(
                orchestrator=job.orchestrator.address,
                service_uri=job.target.service_uri,
                pipeline=job.pipeline,
                pipeline_name=job.pipeline_name,
                model=job.model,
                warm=job.warm,
                timeout_s=job.timeout_s,
                estimated_price_wei=None if job.price_wei is None else str(job.price_wei),
            )
            for job in plan.jobs
        ]
        skipped = [SkipSchema.model_validate(skip) for skip in plan.skipped]
        return cls(jobs=jobs, skipped=skipped, estimated_price_wei=str(plan.price_wei))


class RunSchema(Schema):
    """A tick that a command ran, with all its results."""

    simulated: bool
    tick: TickSchema
    results: list[ResultDetailSchema]

    @classmethod
    def from_report(cls, report: TickReport, results: Sequence[Result], *, simulated: bool = False) -> Self:
        """Return the schema of a tick that has just ended."""
        return cls(
            simulated=simulated,
            tick=TickSchema.from_report(report),
            results=[ResultDetailSchema.from_result(result) for result in results],
        )


def explain_reason(code: str, outcome: str) -> Reason:
    """Return the row of the table of reasons; one without words for a code that only another version had."""
    try:
        return find_reason(code)
    except KeyError:
        return Reason(code, Outcome(outcome), Fault.UNKNOWN, "")


def _explanation(code: str, outcome: str) -> dict[str, str]:
    reason = explain_reason(code, outcome)
    return {"fault": reason.fault, "meaning": reason.meaning, "advice": reason.advice}


def _result_values(result: Result) -> dict[str, Any]:
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
        "request": result.request,
        "response": result.response,
    }
