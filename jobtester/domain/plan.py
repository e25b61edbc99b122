"""The plan of a tick: which jobs, in which order, and what is skipped for which reason."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Protocol

from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, CapabilityKey, Orchestrator, normalize_address, parse_endpoint

SKIP_REASONS: Mapping[str, str] = {
    "no_service_uri": "the orchestrator advertises no service URI, so no gateway can be aimed at it",
    "excluded": "discovery.include or discovery.exclude leaves the orchestrator out",
    "filtered": "the command's own filters leave it out",
    "no_definition": "no pipeline of this name is defined; add a [pipelines.<name>] table to test it",
    "no_model": "the orchestrator names no model for the capability",
    "disabled": "pipelines.<name>.enabled is false",
    "model_filtered": "pipelines.<name>.models does not name the model",
    "no_targeting": "no configured gateway can aim at an orchestrator for this pipeline",
    "price": "the job would cost more than budget.max_price_per_job",
    "budget": "the budget is used up",
    "deadline": "the tick's deadline passed before the job could begin",
    "not_targeted": "the gateway does not use the orchestrator it is told to, so nothing more was sent through it",
    "gateway_lost": "no gateway was left that could take the job",
    "stopped": "the tester was stopped before the job could begin",
}


class PipelineRules(Protocol):
    """What planning needs to know of a pipeline's definition."""

    @property
    def slug(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def byoc(self) -> bool: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def models(self) -> Collection[str]: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def cold_timeout_s(self) -> float: ...

    def estimate_price_wei(self, capability: Capability) -> int | None:
        """Estimate what one job costs in wei; None where it cannot be known."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of the discovered to test. Empty means all; entries are addresses, service URIs, slugs or model ids."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    orchestrators: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that is not tested in this tick, and why: `reason` is one of SKIP_REASONS."""

    orchestrator: str
    service_uri: str
    pipeline: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of one tick in their order, what was skipped, and the seed that shuffled them."""

    tick: str
    seed: int
    jobs: tuple[Job, ...]
    skipped: tuple[Skip, ...]

    @property
    def price_wei(self) -> int:
        """Sum the estimated price of all jobs in wei; jobs of unknown price count 0."""
        return sum(job.price_wei or 0 for job in self.jobs)


def make_plan(
    orchestrators: Iterable[Orchestrator],
    rules: Mapping[str, PipelineRules],
    selection: Selection,
    *,
    tick: str,
    seed: int,
    new_id: Callable[[], str],
    can_target: Callable[[bool], bool] = lambda _byoc: True,
    max_price_wei: int | None = None,
    expected_s: Mapping[CapabilityKey, float] = MappingProxyType({}),
) -> Plan:
    """Plan one job per orchestrator × pipeline × model, and explain everything that is left out.

    `aimable(byoc)` says whether any gateway can aim such a job. `expected_s` gives a recorded duration in seconds or
    None. The order is shuffled by `seed`; the runner puts the longest chains first and keeps this order among equals.
    """
    jobs: list[Job] = []
    skipped: list[Skip] = []
    for orchestrator, capability, reason in _considered(orchestrators, rules, selection, can_target):
        rule = rules.get(capability.pipeline)
        price = rule.estimate_price_wei(capability) if rule else None
        if not reason and max_price_wei is not None and price is not None and price > max_price_wei:
            reason = "price"
        if reason or rule is None:
            skipped.append(
                Skip(orchestrator.address, orchestrator.service_uri, capability.pipeline, capability.model, reason)
            )
            continue
        timeout = rule.timeout_s if capability.warm else rule.cold_timeout_s
        key = CapabilityKey(*orchestrator.target, capability.pipeline, capability.model)
        jobs.append(
            Job(
                id=new_id(),
                tick=tick,
                orchestrator=orchestrator,
                capability=capability,
                pipeline_name=rule.name,
                timeout_s=timeout,
                expected_s=expected_s.get(key) or timeout,
                price_wei=price,
            )
        )
    random.Random(seed).shuffle(jobs)
    return Plan(tick, seed, tuple(jobs), tuple(skipped))


def _considered(
    orchestrators: Iterable[Orchestrator],
    rules: Mapping[str, PipelineRules],
    selection: Selection,
    aimable: Callable[[bool], bool],
) -> Iterator[tuple[Orchestrator, Capability, str]]:
    """Give every advertised capability with the reason to skip it, empty for none."""
    for orchestrator in orchestrators:
        whole = _reason_for_all(orchestrator, selection)
        if whole and not orchestrator.capabilities:
            yield orchestrator, Capability("", ""), whole
        for capability in orchestrator.capabilities:
            rule = rules.get(capability.pipeline)
            yield orchestrator, capability, whole or _reason(capability, rule, selection, aimable)


def _reason_for_all(orchestrator: Orchestrator, selection: Selection) -> str:
    if not orchestrator.service_uri:
        return "no_service_uri"
    if selection.include and not _named(orchestrator, selection.include):
        return "excluded"
    if _named(orchestrator, selection.exclude):
        return "excluded"
    if selection.orchestrators and not _named(orchestrator, selection.orchestrators):
        return "filtered"
    return ""


def _reason(
    capability: Capability, rule: PipelineRules | None, selection: Selection, aimable: Callable[[bool], bool]
) -> str:
    if selection.pipelines and capability.pipeline not in selection.pipelines:
        return "filtered"
    if selection.models and capability.model not in selection.models:
        return "filtered"
    if rule is None or rule.byoc != capability.byoc:
        return "no_definition"
    if not rule.enabled:
        return "disabled"
    if not capability.model:
        return "no_model"
    if not any(fnmatchcase(capability.model, wanted) for wanted in rule.models):
        return "model_filtered"
    if not aimable(capability.byoc):
        return "no_targeting"
    return ""


def _named(orchestrator: Orchestrator, names: Iterable[str]) -> bool:
    """Tell whether one of the names is the orchestrator's address or means its service URI."""
    here = parse_endpoint(orchestrator.service_uri)
    for name in names:
        if normalize_address(name) == orchestrator.address:
            return True
        if not name.lower().startswith("0x") and here is not None and parse_endpoint(name) == here:
            return True
    return False


def remaining_wei(per_tick: int | None, per_day: int | None, spent_today: int) -> int | None:
    """Say how many wei a tick may cost; None where nothing bounds it."""
    bounds = [] if per_tick is None else [per_tick]
    if per_day is not None:
        bounds.append(max(0, per_day - spent_today))
    return min(bounds) if bounds else None


def limit_to_budget(plan: Plan, max_wei: int | None, tested: Collection[CapabilityKey]) -> Plan:
    """Leave out what `most_wei` does not pay, first of all what was `tested` today already.

    `tested` holds (address, service URI, pipeline, model). Jobs of unknown price cost nothing here: their price is
    what the orchestrator asks in the payment, and `max_price_per_job` cannot bound it either.
    """
    if max_wei is None or plan.price_wei <= max_wei:
        return plan
    paid, left = set(), max_wei
    for job in sorted(plan.jobs, key=lambda job: job.key in tested):
        price = job.price_wei or 0
        if price <= left:
            paid.add(job.id)
            left -= price
    return replace(
        plan,
        jobs=tuple(job for job in plan.jobs if job.id in paid),
        skipped=plan.skipped + tuple(_skip(job) for job in plan.jobs if job.id not in paid),
    )


def _skip(job: Job) -> Skip:
    return Skip(job.orchestrator.address, job.target.service_uri, job.pipeline, job.model, "budget")
