"""Define the JSON that only commands print: the plan of a tick, and a tick with all its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field

from jobtester.domain.plan import Plan
from jobtester.domain.results import Result
from jobtester.domain.tick_report import TickReport
from jobtester.web.schemas.base import Address, KindText, RunnerSchema, Schema, Seconds, Wei
from jobtester.web.schemas.results import LiveRunnerSchema, ResultDetailSchema
from jobtester.web.schemas.ticks import TickSchema


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
    kind: KindText
    runner: RunnerSchema | None


class SkipSchema(Schema):
    """A capability that a tick would not test."""

    orchestrator: Address
    service_uri: str
    pipeline: str
    model: str
    reason: str
    note: str = Field("", description="the reason of the [[pause]] table, for `paused`")
    kind: KindText | None = Field(description="null for an orchestrator that is skipped as a whole")
    runner: RunnerSchema | None


class UnusableRunnerSchema(LiveRunnerSchema):
    """A live runner that is advertised, or was, and could not serve a job."""

    orchestrator: Address


class PlanSchema(Schema):
    """The jobs of a tick in their order, and what it skips."""

    jobs: list[PlannedJobSchema]
    skipped: list[SkipSchema]
    unusable_runners: list[UnusableRunnerSchema]
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
                kind=job.capability.kind.value,
                runner=RunnerSchema.from_capability(job.capability),
            )
            for job in plan.jobs
        ]
        skipped = [
            SkipSchema(
                orchestrator=skip.orchestrator,
                service_uri=skip.service_uri,
                pipeline=skip.pipeline,
                model=skip.model,
                reason=skip.reason,
                note=skip.note,
                kind=skip.capability.kind.value if skip.capability is not None else None,
                runner=RunnerSchema.from_capability(skip.capability),
            )
            for skip in plan.skipped
        ]
        runners = [
            UnusableRunnerSchema.model_validate(UnusableRunnerSchema.read_fields(status))
            for status in plan.runners
            if status.is_unusable
        ]
        return cls(jobs=jobs, skipped=skipped, unusable_runners=runners, estimated_price_wei=str(plan.price_wei))


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
