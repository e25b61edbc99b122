"""Lay out the plan of a tick for terminals: its jobs, what it skips, and the live runners that cannot serve."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from jobtester.cli.tables import (
    MIN_WIDE_TICK,
    Column,
    describe_warmth,
    format_price,
    make_table,
)
from jobtester.domain.orchestrators import Capability, shorten_address
from jobtester.domain.plan import Plan
from jobtester.domain.runner_status import STATES, RunnerStatus
from jobtester.domain.units import format_duration, format_runner_price


def plan_tables(plan: Plan, *, width: int) -> list[Table]:
    """Return the jobs of a plan, and what it skips, if anything."""
    tables = [
        make_table(
            [
                Column(("orchestrator", "service URI")),
                Column(("pipeline", "model")),
                Column(("limit", "state")),
                Column(("estimated price", "listed price")),
            ],
            (
                (
                    (shorten_address(job.orchestrator.address), job.target.service_uri),
                    (job.pipeline, job.model),
                    (format_duration(job.timeout_s), describe_warmth(job.warm)),
                    (
                        "unknown" if job.price_wei is None else format_price(job.price_wei),
                        _runner_price(job.capability),
                    ),
                )
                for job in plan.jobs
            ),
            title=f"{len(plan.jobs)} jobs",
            is_wide=width >= MIN_WIDE_TICK,
            cut=True,
        )
    ]
    if plan.skipped:
        tables.append(_skips_table(plan, is_wide=width >= MIN_WIDE_TICK))
    unusable = [status for status in plan.runners if status.is_unusable]
    if unusable:
        tables.append(_unusable_runners_table(unusable, is_wide=width >= MIN_WIDE_TICK))
    return tables


def _skips_table(plan: Plan, *, is_wide: bool) -> Table:
    return make_table(
        [
            Column(("orchestrator", "service URI")),
            Column(("pipeline", "model")),
            Column(("reason", "listed price", "meaning")),
        ],
        (
            (
                (shorten_address(skip.orchestrator), skip.service_uri),
                (skip.pipeline, skip.model),
                (skip.reason, _runner_price(skip.capability), skip.explanation),
            )
            for skip in plan.skipped
        ),
        title=f"{len(plan.skipped)} skipped",
        is_wide=is_wide,
        cut=True,
    )


def _unusable_runners_table(statuses: Sequence[RunnerStatus], *, is_wide: bool) -> Table:
    return make_table(
        [
            Column(("orchestrator", "service URI")),
            Column(("app", "version")),
            Column(("ticks",)),
            Column(("state", "meaning")),
        ],
        (
            (
                (shorten_address(status.orchestrator), status.service_uri),
                (status.app, status.version),
                (str(status.ticks),),
                (status.state, STATES.get(status.state, "")),
            )
            for status in statuses
        ),
        title=f"{len(statuses)} live runners that cannot serve",
        is_wide=is_wide,
        cut=True,
    )


def _runner_price(capability: Capability | None) -> str:
    """Return what a live runner asks for, with its unit; empty for other capabilities."""
    if capability is None or capability.runner is None:
        return ""
    price = capability.price
    return format_runner_price(
        price.wei_per_unit if price is not None else None, capability.runner.unit, capability.runner.mode
    )
