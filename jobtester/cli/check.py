"""`jobtester check`: the configuration and every peer, one line each, all problems at once."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Sequence
from typing import TypeAlias

import aiohttp

from jobtester.cli.healthcheck import local_url
from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.daemon.daemon import Daemon
from jobtester.domain.attribution import AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.reasons import Outcome
from jobtester.errors import ConfigError, JobTesterError
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.targeting import WebhookTargeting
from jobtester.tick.attempt import JobAttempt

Line: TypeAlias = tuple[bool, str, str]

_ANSWER_WITHIN_S = 4.5  # of each peer; all are asked at the same time
_NEEDED_TO_POST = ("region: needed to post", "leaderboard.secret: needed to post")


def check(options: argparse.Namespace) -> int:
    """Try everything that a tick needs; return 0 if all is well, else 1."""
    loaded, lines = _load(options.config)
    loaded.apply_log_settings(quiet=True)
    enabled = sum(definition.enabled for definition in loaded.catalogue.values())
    lines += [
        (True, "assets", f"every test input of {enabled} enabled pipelines is sound"),
        *asyncio.run(_peers(loaded, probe=options.probe)),
    ]
    for well, name, text in lines:
        print(f"{'ok    ' if well else 'FAILED'}  {name}: {text}", file=sys.stdout)  # noqa: T201
    return 0 if all(well for well, *_ in lines) else 1


def _load(path: str) -> tuple[Configuration, list[Line]]:
    """Load the configuration; what it lacks for posting alone is a line, and the rest is tried all the same."""
    try:
        loaded = Configuration.load(path)
    except ConfigError as error:
        lacking = [problem for problem in error.problems if problem.startswith(_NEEDED_TO_POST)]
        if not lacking or len(lacking) < len(error.problems):
            raise
        loaded = Configuration.load(path, {"leaderboard": {"post": False}})
        return loaded, [(False, "configuration", problem) for problem in lacking]
    return loaded, [(True, "configuration", f"{loaded.origin} is valid")]


async def _peers(loaded: Configuration, *, probe: bool) -> list[Line]:
    async with open_daemon(loaded, owner=False) as running:
        tries: list[tuple[str, Awaitable[str]]] = []
        for gateway in running.coordinator.gateways:
            tries.append((f"gateway {gateway.name}", _gateway(gateway)))
            if gateway.client.cli_url:
                tries.append((f"gateway {gateway.name}, CLI port", _cli(gateway)))
            if isinstance(gateway.targeting, WebhookTargeting):
                tries.append((f"webhook for {gateway.name}", _webhook(running, gateway)))
            if gateway.settings.overlap:
                tries.append((f"evidence for overlap on {gateway.name}", _evidence(gateway)))
        tries.append(("discovery", _discovery(running)))
        if running.delivery is not None:
            tries.append(("leaderboard", running.delivery.check()))
        lines = await asyncio.gather(*(_line(name, trying) for name, trying in tries))
        return [*lines, *(await _probes(running) if probe else ())]


async def _line(name: str, trying: Awaitable[str]) -> Line:
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            return (True, name, await trying)
    except TimeoutError:
        return (False, name, f"no answer within {_ANSWER_WITHIN_S:g} s")
    except JobTesterError as error:
        return (False, name, str(error))


async def _gateway(gateway: Gateway) -> str:
    if problem := await gateway.client.find_problem(_ANSWER_WITHIN_S - 0.5):
        raise JobTesterError(problem)
    return f"{gateway.client.url} answers"


async def _cli(gateway: Gateway) -> str:
    status, _ = await gateway.client.get_cli("/status", timeout_s=_ANSWER_WITHIN_S - 0.5)
    return f"{gateway.client.cli_url} answers ({status})"


async def _evidence(gateway: Gateway) -> str:
    if gateway.evidence.metrics is None:
        return "an event sink is configured"
    status, _ = await gateway.client.get_cli("/metrics", timeout_s=_ANSWER_WITHIN_S - 0.5)
    if status != 200:
        raise JobTesterError(f"{gateway.client.cli_url}/metrics answers {status}; run the gateway with -monitor=true")
    return "metrics can be read"


async def _webhook(running: Daemon, gateway: Gateway) -> str:
    several = sum(isinstance(one.targeting, WebhookTargeting) for one in running.coordinator.gateways) > 1
    path = f"/orchestrators/{gateway.name}" if several else "/orchestrators"
    url = local_url(running.configuration.settings.server.host, running.port) + path
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            if answer.status != 200:
                raise JobTesterError(f"{url} answers {answer.status}")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise JobTesterError(f"{url}: {error}; check server.host") from error
    port = running.configuration.settings.server.port or "<port>"
    return f"{path} answers; the gateway needs -orchWebhookUrl=http://<this host>:{port}{path}"


async def _discovery(running: Daemon) -> str:
    found = await running.coordinator.planner.discover(patience_s=0.0)
    if not found:
        raise JobTesterError("the gateway answers, but knows no orchestrators; one that has just started needs a while")
    jobs = len((await running.coordinator.planner.plan("check", found)).jobs)
    return f"{len(found)} orchestrators, {jobs} jobs to send"


async def _probes(running: Daemon) -> list[Line]:
    """Send two real jobs through each gateway, one of them llm, whose form depends on the gateway's build."""
    conductor = running.coordinator
    if not conductor.planner.orchestrators:
        return [(False, "probe", "nobody was discovered, so there is no job to send")]
    plan = await conductor.planner.plan("check", conductor.planner.orchestrators)
    trial = await conductor.make_attempt(plan.seed)
    lines: list[Line] = []
    wanted = running.configuration.settings.server.port
    for gateway in conductor.gateways:
        if isinstance(gateway.targeting, WebhookTargeting) and wanted not in (0, running.port):
            lines.append((
                False, f"probe of {gateway.name}",
                f"another program listens on port {wanted}, and the gateway asks that one; stop the daemon first",
            ))  # fmt: skip
            continue
        await gateway.begin_tick(conductor.planner.orchestrators)
        try:
            lines += [await _probe(trial, gateway, job) for job in _chosen(plan.jobs, gateway)] or [
                (False, f"probe of {gateway.name}", "no planned job may go through this gateway")
            ]
        finally:
            gateway.end_tick()
    return lines


def _chosen(jobs: Sequence[Job], gateway: Gateway) -> list[Job]:
    """Choose an llm job and another one: warm models first, then idle orchestrators, then cheap jobs."""
    able = sorted(
        (job for job in jobs if gateway.accepts(job)),
        key=lambda job: (not job.warm, job.capability.is_busy, job.price_wei or 0),
    )
    llm = next((job for job in able if job.pipeline == "llm"), None)
    other = next((job for job in able if job.pipeline != "llm"), None)
    return [job for job in (other, llm) if job is not None]


async def _probe(trial: JobAttempt, gateway: Gateway, job: Job) -> Line:
    name = f"probe of {gateway.name}"
    gateway.on_taken(job)
    try:
        sent = await trial.send(job, gateway, gateway.on_sent)
    finally:
        gateway.on_answered(job)
    result = (await trial.judge(sent, gateway)).result
    who = f"{job.pipeline} {job.model} at {job.target.service_uri}"
    how = f"{result.verdict.outcome.value} ({result.verdict.code}) in {result.round_trip_s:.1f} s"
    evidence = "; ".join(result.attribution.evidence)
    if job.pipeline == "llm" and b"multipart/form-data" in sent.exchange.body:
        return (False, name, f"{who}: this gateway's llm takes no JSON; use a newer image, see docs/gateway.md")
    followed = result.attribution.kind in (AttributionKind.PROVEN, AttributionKind.PRESUMED)
    if not followed:
        return (
            False,
            name,
            f"{who}: {how}; the gateway ignores which orchestrator the tester names: {evidence}",
        )
    served = (
        "served, as evidence proves"
        if result.attribution.kind is AttributionKind.PROVEN
        else "probably served, unproven"
    )
    problem = "" if result.verdict.outcome is Outcome.PASSED else f": {result.verdict.message}"
    well = result.verdict.outcome is not Outcome.UNSCORED
    return (well, name, f"{who} {served}: {how}{problem}; {evidence}")
