"""Define the JSON of ticks, of the newest tick's progress, and of the tester's status."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field

from jobtester.domain.reasons import Outcome
from jobtester.domain.tick_changes import CapabilityChange, TickChanges
from jobtester.domain.tick_report import TickReport
from jobtester.store.ticks import TickRow
from jobtester.web.context import ProgressView
from jobtester.web.schemas.base import Address, Count, Counts, Instant, PageSchema, Schema, Seconds, Wei


class TickReportSchema(Schema):
    """A tick's job report. Its fields are those of the public JSON; what an older version did not report is empty."""

    problem: str = ""
    orchestrators: Count = 0
    planned: Count = 0
    settled: Count = 0
    outcomes: Counts = Field({})
    reasons: Counts = Field({})
    attribution: Counts = Field({})
    pipelines: dict[str, Counts] = Field({})
    warmth: dict[str, Counts] = Field({}, description="outcomes by what was advertised, warm or cold")
    skipped: Counts = Field({})
    pauses: Counts = Field({}, description="skipped jobs by the reason of the [[pause]] table that paused them")
    deferred: Counts = Field({})
    estimated_price_wei: Wei = "0"
    phases: dict[str, Seconds] = Field({}, description="how long discovery and jobs took, as far as they are over")
    work_s: Seconds = 0.0
    longest_chain_s: Seconds = Field(0.0, description="the time that the busiest orchestrator's jobs took")

    @classmethod
    def read_fields(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model's fields as a report has them, in which prices may be numbers."""
        price = {"estimated_price_wei": str(row.get("estimated_price_wei", 0))}
        return {name: row.get(name, field.default) for name, field in cls.model_fields.items()} | price


class TickSchema(Schema):
    """A tick with its job report; the running tick has the report so far."""

    id: str
    # Enforced, unlike outcomes: the states are the same in all versions.
    state: Literal["running", "finished", "aborted", "failed", "suspect"]
    trigger: str
    seed: int
    started_at: Instant
    finished_at: Instant | None
    report: TickReportSchema | None = Field(description="null for a tick that was cut off before it could report")

    @classmethod
    def read_fields(cls, row: TickRow, running: TickReport | None = None) -> dict[str, Any]:
        """Return the model's fields as a stored tick has them, with the report of `running` if it is the same tick."""
        report = row.report or None
        if report is None and running is not None and running.tick == row.id:
            report = running.as_json()
        complete = None if report is None else TickReportSchema.read_fields(report)
        return super().read_fields(row) | {"report": complete}

    @classmethod
    def from_row(cls, row: TickRow, running: TickReport | None = None) -> Self:
        """Return the schema of a stored tick, with the report of `running` if that is the same tick."""
        return cls.model_validate(cls.read_fields(row, running))

    @classmethod
    def from_report(cls, report: TickReport) -> Self:
        """Return the schema of a tick that has just ended or still runs."""
        values = report.as_json()
        return cls.model_validate(values | {"id": report.tick, "report": values})


class ChangeSchema(Schema):
    """A capability that newly fails or passes again, with the result that shows it."""

    orchestrator: Address
    service_uri: str
    pipeline: str
    model: str
    reason: str = Field(description="the reason code of a failure, empty for a pass")
    result: str
    result_url: str = Field(description="empty without server.public_url")
    orchestrator_url: str


class NotificationSchema(TickSchema):
    """A finished tick as it is posted to notify.url, with what it changed."""

    region: str
    tick_url: str = Field(description="empty without server.public_url")
    failing: list[ChangeSchema] = Field(description="what newly fails; the first 200")
    recovered: list[ChangeSchema] = Field(description="what passes again; the first 200")
    failing_count: Count
    recovered_count: Count
    still_failing_count: Count = Field(description="capabilities that failed in this tick and before it")

    @classmethod
    def from_changes(
        cls,
        report: TickReport,
        changes: TickChanges,
        *,
        region: str,
        tick_url: str,
        max_changes: int,
        urls: Callable[[CapabilityChange], tuple[str, str]],
    ) -> Self:
        """Return the schema of a tick and what it changed; `urls` returns the pages of result and orchestrator."""

        def items(found: Sequence[CapabilityChange]) -> list[ChangeSchema]:
            return [
                ChangeSchema(
                    **{
                        name: getattr(change.key, name) for name in ("orchestrator", "service_uri", "pipeline", "model")
                    },
                    reason=change.reason,
                    result=change.result,
                    result_url=urls(change)[0],
                    orchestrator_url=urls(change)[1],
                )
                for change in found[:max_changes]
            ]

        return cls(
            **dict(TickSchema.from_report(report)),
            region=region,
            tick_url=tick_url,
            failing=items(changes.failing),
            recovered=items(changes.recovered),
            failing_count=len(changes.failing),
            recovered_count=len(changes.recovered),
            still_failing_count=changes.still_failing,
        )


class SlowResultSchema(Schema):
    """One of a tick's slowest results."""

    id: str
    orchestrator: Address
    pipeline: str
    model: str
    round_trip_s: Seconds


class TickDetailSchema(TickSchema):
    """A tick with its job report and its slowest results."""

    slowest: list[SlowResultSchema] = Field([])

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
    outcomes: Counts = Field({})
    in_flight: list[InFlightSchema] = Field([])

    @classmethod
    def from_row(cls, row: TickRow) -> Self:
        """Return the schema of a stored tick that has ended."""
        report = TickReportSchema.model_validate(TickReportSchema.read_fields(row.report))
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
