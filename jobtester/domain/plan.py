"""Plan a tick: which jobs in which order, what is skipped for which reason, and what the budget allows."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Protocol

from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import (
    SINGLE_SHOT,
    Capability,
    CapabilityKey,
    Orchestrator,
    normalize_address,
    parse_endpoint,
)
from jobtester.domain.runner_doubts import RunnerDoubts
from jobtester.domain.runner_status import RunnerStatus

RESERVE_PROBE = "reserve-probe"  # the pipeline that tests a persistent app by reserving a session and stopping it
SKIP_REASONS: Mapping[str, str] = {
    "no_service_uri": "the orchestrator advertises no service URI, so no gateway can send it a job",
    "no_address": "the service URI is one of live_runner.urls, and its orchestrator's address is not known; name "
    "the address in [[discovery.orchestrators]]",
    "excluded": "discovery.include or discovery.exclude excludes the orchestrator",
    "paused": "a [[pause]] table stops its tests for maintenance",
    "filtered": "the command's filters exclude it",
    "no_definition": "no pipeline of this name is defined; add a [pipelines.<name>] table to test it",
    "no_model": "the orchestrator advertises no model for the capability",
    "disabled": "pipelines.<name>.enabled is false",
    "model_filtered": "pipelines.<name>.models does not name the model",
    "foreign_url": "the live runner's URL is on another host or port than the orchestrator's service URI, so nothing "
    "proves who would serve the job",
    "shared_uri": "several orchestrators advertise this service URI, so nothing proves whose the live runner is",
    "taken_name": "the app has the name of one of go-livepeer's own pipelines, with which it would share its score",
    "stream_per_job": "the live runner starts a video stream for each job; such apps are not tested",
    "video_single_shot": "the pipeline is a video stream, which needs a session, and the live runner takes single "
    "requests",
    "unpaid": "the live runner has a price, and no live_runner.payment.signer_url pays it",
    "no_callback": "live video needs an address by which gateways reach the tester; set live_video.callback_host",
    "no_streams": "no gateway may have a live video stream; set gateways.streams to 1 or more for one of them",
    "no_targeting": "no configured gateway can send a job of this pipeline to a named orchestrator",
    "price": "the job would cost more than budget.max_price_per_job or live_runner.payment.max_price_per_job, or its "
    "price is for an unknown unit",
    "budget": "the budget is used up",
    "deadline": "the tick's deadline passed before the job could begin",
    "not_targeted": "the gateway ignores the tester's choice, so nothing more was sent through it",
    "gateway_lost": "no gateway was left that could take the job",
    "stopped": "the tester was stopped before the job could begin",
}


class PipelineRules(Protocol):
    """What planning needs to know of a pipeline's definition."""

    @property
    def name(self) -> str:
        """Return the name that the Leaderboard gets."""

    @property
    def byoc(self) -> bool:
        """Return True for an external capability."""

    @property
    def runner(self) -> bool:
        """Return True for apps of live runners."""

    @property
    def is_video(self) -> bool:
        """Return True if each job is a video stream."""

    @property
    def apps(self) -> Collection[str]:
        """Return the patterns of the apps that this is the definition of, for live runners."""

    @property
    def enabled(self) -> bool:
        """Return True if the pipeline is tested at all."""

    @property
    def models(self) -> Collection[str]:
        """Return the patterns of the models that are tested."""

    @property
    def timeout_s(self) -> float:
        """Return the time limit for a warm model in seconds."""

    @property
    def cold_timeout_s(self) -> float:
        """Return the time limit for a model that may have to be loaded, in seconds."""

    def estimate_price_wei(self, capability: Capability) -> int | None:
        """Return what one job probably costs in wei; None where that cannot be known."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Maintenance that is on: which orchestrators are not tested, all where none is named, and why."""

    orchestrators: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of the discovered capabilities to test.

    Entries are addresses, service URIs, slugs or model ids; an empty list means all. Jobs that cost more than
    `max_price_wei` are left out. `pays_runners` means that jobs of live runners can be paid for, each with
    `max_runner_price_wei` at most.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    orchestrators: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    max_price_wei: int | None = None
    pauses: tuple[Pause, ...] = ()
    pays_runners: bool = False
    max_runner_price_wei: int | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """A capability that is not tested in this tick; `reason` is one of SKIP_REASONS.

    `capability` is None for an orchestrator that is skipped as a whole. `note` is what the operator wrote about it.
    """

    orchestrator: str
    service_uri: str
    pipeline: str
    model: str
    reason: str
    capability: Capability | None = None
    note: str = field(default="", kw_only=True)

    @property
    def explanation(self) -> str:
        """Return why it is not tested; for a pause in the operator's words."""
        return self.note or SKIP_REASONS.get(self.reason, "")


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of one tick in their order, what was skipped, and the seed that shuffled them.

    `runners` are all live runners that have been listed, with what the newest discovery shows of them.
    """

    tick: str
    seed: int
    jobs: tuple[Job, ...]
    skipped: tuple[Skip, ...]
    runners: tuple[RunnerStatus, ...] = ()

    @property
    def price_wei(self) -> int:
        """Return the estimated price of all jobs in wei; jobs of unknown price count 0."""
        return sum(job.price_wei or 0 for job in self.jobs)


def make_plan(
    orchestrators: Iterable[Orchestrator],
    rules: Mapping[str, PipelineRules],
    selection: Selection,
    *,
    tick: str,
    seed: int,
    new_id: Callable[[], str],
    find_obstacle: Callable[[Capability], str] = lambda _capability: "",
    expected_s: Mapping[CapabilityKey, float] = MappingProxyType({}),
) -> Plan:
    """Plan one job per orchestrator × pipeline × model, and explain everything that is left out.

    `find_obstacle` returns a reason to skip where no gateway can send such a job to a named orchestrator. `expected_s`
    holds recorded durations in seconds. The order is shuffled by `seed`.
    """
    jobs: list[Job] = []
    skipped: list[Skip] = []
    orchestrators = list(orchestrators)
    taken_names = [name for slug, rule in rules.items() if not (rule.runner or rule.byoc) for name in (slug, rule.name)]
    doubts = RunnerDoubts.find(orchestrators, taken_names)
    for orchestrator in orchestrators:
        reason_for_all, note = _reason_to_skip_orchestrator(orchestrator, selection)
        if reason_for_all and not orchestrator.capabilities:
            skipped.append(Skip(*orchestrator.target, "", "", reason_for_all, note=note))
        for capability in orchestrator.capabilities:
            key = CapabilityKey(*orchestrator.target, capability.pipeline, capability.model, capability.kind)
            definition = find_definition(rules, capability)
            rule = rules[definition] if definition is not None else None
            price_wei = rule.estimate_price_wei(capability) if rule else None
            reason = reason_for_all or doubts.reason_to_skip(orchestrator, capability)
            reason = reason or _reason_to_skip_capability(capability, rule, selection, find_obstacle)
            if not reason and _is_too_expensive(capability, price_wei, selection):
                reason = "price"
            if reason or rule is None or definition is None:
                skipped.append(Skip(*key[:4], reason, capability, note=note))
                continue
            timeout_s = rule.timeout_s if capability.warm else rule.cold_timeout_s
            jobs.append(
                Job(
                    id=new_id(),
                    tick=tick,
                    orchestrator=orchestrator,
                    capability=capability,
                    pipeline_name=rule.name if capability.runner is None else capability.pipeline,
                    timeout_s=timeout_s,
                    expected_s=expected_s.get(key) or timeout_s,
                    price_wei=price_wei,
                    definition=definition,
                    is_video=rule.is_video,
                )
            )
    # Shuffled so that no orchestrator is always tested first, or next to the same others. The job queue puts those
    # with the most work first and keeps this order among equals; with the seed a tick's order can be repeated.
    random.Random(seed).shuffle(jobs)
    return Plan(tick, seed, tuple(jobs), tuple(skipped))


def find_definition(rules: Mapping[str, PipelineRules], capability: Capability) -> str | None:
    """Return the name of the pipeline that tests a capability; None if there is none.

    For an app of a live runner that is the one of the app's own name, else the last one with a pattern that matches: a
    table of config.toml comes after the built-in ones.
    """
    app = capability.pipeline
    named = rules.get(app)
    if capability.runner is None:
        return app if named is not None and not named.runner and named.byoc == capability.byoc else None
    if named is not None and named.runner and app != RESERVE_PROBE:
        return app
    is_persistent = capability.runner.mode != SINGLE_SHOT
    return next(
        (
            slug
            for slug, rule in reversed(list(rules.items()))
            if rule.runner and any(fnmatchcase(app, pattern) for pattern in rule.apps)
        ),
        RESERVE_PROBE if is_persistent and RESERVE_PROBE in rules else None,
    )


def calculate_allowance_wei(per_tick: int | None, per_day: int | None, spent_today: int) -> int | None:
    """Return how many wei a tick may cost; None where nothing limits it."""
    limits = [] if per_tick is None else [per_tick]
    if per_day is not None:
        limits.append(max(0, per_day - spent_today))
    return min(limits) if limits else None


def limit_to_budget(plan: Plan, max_wei: int | None, tested: Collection[CapabilityKey]) -> Plan:
    """Return the plan without the jobs that `max_wei` does not pay; `tested` are what today's ticks have tested.

    Jobs of unknown price cost nothing here: their price is what the orchestrator asks in the payment, and
    `max_price_per_job` cannot limit it either.
    """
    if max_wei is None or plan.price_wei <= max_wei:
        return plan
    # What was not tested today comes first, so that a small budget still reaches everything in the course of a day.
    affordable, left_wei = set(), max_wei
    for job in sorted(plan.jobs, key=lambda job: job.key in tested):
        price_wei = job.price_wei or 0
        if price_wei <= left_wei:
            affordable.add(job.id)
            left_wei -= price_wei
    return replace(
        plan,
        jobs=tuple(job for job in plan.jobs if job.id in affordable),
        skipped=plan.skipped
        + tuple(Skip(*job.key[:4], "budget", job.capability) for job in plan.jobs if job.id not in affordable),
    )


def _reason_to_skip_orchestrator(orchestrator: Orchestrator, selection: Selection) -> tuple[str, str]:
    """Return why nothing of an orchestrator is tested, and what the operator wrote about it; empty texts for none."""
    if not orchestrator.service_uri:
        return "no_service_uri", ""
    if not orchestrator.address:
        return "no_address", ""
    if selection.include and not is_listed(orchestrator, selection.include):
        return "excluded", ""
    if is_listed(orchestrator, selection.exclude):
        return "excluded", ""
    for pause in selection.pauses:
        if not pause.orchestrators or is_listed(orchestrator, pause.orchestrators):
            return "paused", pause.reason
    if selection.orchestrators and not is_listed(orchestrator, selection.orchestrators):
        return "filtered", ""
    return "", ""


def _reason_to_skip_capability(
    capability: Capability, rule: PipelineRules | None, selection: Selection, find_obstacle: Callable[[Capability], str]
) -> str:
    if selection.pipelines and capability.pipeline not in selection.pipelines:
        return "filtered"
    if selection.models and capability.model not in selection.models:
        return "filtered"
    runner = capability.runner
    if runner is not None and runner.is_foreign:
        return "foreign_url"
    if runner is not None and runner.url.endswith("/scope"):
        return "stream_per_job"
    if rule is None:
        return "no_definition"
    if not rule.enabled:
        return "disabled"
    if not capability.model:
        return "no_model"
    if not any(fnmatchcase(capability.model, pattern) for pattern in rule.models):
        return "model_filtered"
    if runner is not None and runner.mode == SINGLE_SHOT and rule.is_video:
        return "video_single_shot"
    if runner is not None:
        return "unpaid" if capability.is_priced and not selection.pays_runners else ""
    return find_obstacle(capability)


def _is_too_expensive(capability: Capability, price_wei: int | None, selection: Selection) -> bool:
    """Return True if a job costs more than a limit allows.

    A job of unknown price is sent through a gateway: what it costs is settled in the payment, which no limit here
    reaches. A live runner is paid by the tester itself, so that its price has to be known.
    """
    if capability.runner is None:
        limits = [selection.max_price_wei]
    elif price_wei is None:
        return True
    else:
        limits = [selection.max_price_wei, selection.max_runner_price_wei]
    return price_wei is not None and any(limit is not None and price_wei > limit for limit in limits)


def is_listed(orchestrator: Orchestrator, names: Iterable[str]) -> bool:
    """Return True if a name is the orchestrator's address, or a way to write its service URI."""
    endpoint = parse_endpoint(orchestrator.service_uri)
    for name in names:
        if normalize_address(name) == orchestrator.address:
            return True
        if not name.lower().startswith("0x") and endpoint is not None and parse_endpoint(name) == endpoint:
            return True
    return False
