"""The budget of a tick: which jobs are left out so that the rest can be paid. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip

Tested = Collection[tuple[str, str, str, str]]


def left_wei(per_tick: int | None, per_day: int | None, spent_today: int) -> int | None:
    """Say how many wei a tick may cost; None where nothing bounds it."""
    bounds = [] if per_tick is None else [per_tick]
    if per_day is not None:
        bounds.append(max(0, per_day - spent_today))
    return min(bounds) if bounds else None


def within(plan: Plan, most_wei: int | None, tested: Tested) -> Plan:
    """Leave out what `most_wei` does not pay, first of all what was `tested` today already.

    `tested` holds (address, service URI, pipeline, model). Jobs of unknown price cost nothing here: their price is
    what the orchestrator asks in the payment, and `max_price_per_job` cannot bound it either.
    """
    if most_wei is None or plan.price_wei <= most_wei:
        return plan
    paid, left = set(), most_wei
    for job in sorted(plan.jobs, key=lambda job: key(job) in tested):
        price = job.price_wei or 0
        if price <= left:
            paid.add(job.id)
            left -= price
    return replace(
        plan,
        jobs=tuple(job for job in plan.jobs if job.id in paid),
        skipped=plan.skipped + tuple(_skip(job) for job in plan.jobs if job.id not in paid),
    )


def key(job: Job) -> tuple[str, str, str, str]:
    """Name what a job tests."""
    return (job.orchestrator.address, job.target.service_uri, job.pipeline, job.model)


def _skip(job: Job) -> Skip:
    return Skip(job.orchestrator.address, job.target.service_uri, job.pipeline, job.model, "budget")
