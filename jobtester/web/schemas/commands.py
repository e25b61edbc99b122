"""Define the JSON that only commands print: the plan of a tick, and a tick with all its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from jobtester.domain.plan import Plan
from jobtester.domain.results import Result
from jobtester.domain.tick_report import TickReport
from jobtester.web.schemas.base import Address, Schema, Seconds, Wei
from jobtester.web.schemas.results import ResultDetailSchema
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
