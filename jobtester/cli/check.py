"""`jobtester check`: the configuration and every peer, one line each, all problems at once."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Sequence
from typing import TypeAlias

import aiohttp

from jobtester import configuration, daemon
from jobtester.cli.healthcheck import local_url
from jobtester.configuration import Configuration
from jobtester.daemon import Daemon
from jobtester.domain.attribution import Kind
from jobtester.domain.jobs import Job
from jobtester.domain.outcome import Outcome
from jobtester.errors import ConfigError, JobTesterError
from jobtester.gateway.lane import Lane
from jobtester.gateway.targeting import Webhook
from jobtester.tick.trial import Trial

Line: TypeAlias = tuple[bool, str, str]

_ANSWER_WITHIN_S = 4.5  # of each peer; all are asked at the same time
_NEEDED_TO_POST = ("region: needed to post", "leaderboard.secret: needed to post")


def check(options: argparse.Namespace) -> int:
    """Try everything that a tick needs; return 0 if all is well, else 1."""
    loaded, lines = _load(options.config)
    loaded = configuration.with_logs(loaded, quiet=True)
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
        loaded = configuration.load(path)
    except ConfigError as error:
        lacking = [problem for problem in error.problems if problem.startswith(_NEEDED_TO_POST)]
        if not lacking or len(lacking) < len(error.problems):
            raise
        loaded = configuration.load(path, {"leaderboard": {"post": False}})
        return loaded, [(False, "configuration", problem) for problem in lacking]
    return loaded, [(True, "configuration", f"{loaded.origin} is valid")]


async def _peers(loaded: Configuration, *, probe: bool) -> list[Line]:
    async with daemon.opened(loaded, owner=False) as running:
        tries: list[tuple[str, Awaitable[str]]] = []
        for lane in running.conductor.lanes:
            tries.append((f"gateway {lane.name}", _gateway(lane)))
            if lane.client.cli_url:
                tries.append((f"gateway {lane.name}, CLI port", _cli(lane)))
            if isinstance(lane.targeting, Webhook):
                tries.append((f"webhook for {lane.name}", _webhook(running, lane)))
            if lane.settings.overlap:
                tries.append((f"evidence for overlap on {lane.name}", _evidence(lane)))
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


async def _gateway(lane: Lane) -> str:
    if problem := await lane.client.problem(_ANSWER_WITHIN_S - 0.5):
        raise JobTesterError(problem)
    return f"{lane.client.url} answers"


async def _cli(lane: Lane) -> str:
    status, _ = await lane.client.cli("/status", timeout_s=_ANSWER_WITHIN_S - 0.5)
    return f"{lane.client.cli_url} answers ({status})"


async def _evidence(lane: Lane) -> str:
    if lane.evidence.metrics is None:
        return "an event sink is configured"
    status, _ = await lane.client.cli("/metrics", timeout_s=_ANSWER_WITHIN_S - 0.5)
    if status != 200:
        raise JobTesterError(f"{lane.client.cli_url}/metrics answers {status}; run the gateway with -monitor=true")
    return "metrics can be read"


async def _webhook(running: Daemon, lane: Lane) -> str:
    several = sum(isinstance(one.targeting, Webhook) for one in running.conductor.lanes) > 1
    path = f"/orchestrators/{lane.name}" if several else "/orchestrators"
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
    found = await running.conductor.discover(patience_s=0.0)
    if not found:
        raise JobTesterError("the gateway answers, but knows no orchestrators; one that has just started needs a while")
    jobs = len((await running.conductor.plan("check", found)).jobs)
    return f"{len(found)} orchestrators, {jobs} jobs to send"


async def _probes(running: Daemon) -> list[Line]:
    """Send two real jobs through each gateway, one of them llm, whose form depends on the gateway's build."""
    conductor = running.conductor
    if not conductor.orchestrators:
        return [(False, "probe", "nobody was discovered, so there is no job to send")]
    plan = await conductor.plan("check", conductor.orchestrators)
    trial = await conductor.make_trial(plan.seed)
    lines: list[Line] = []
    wanted = running.configuration.settings.server.port
    for lane in conductor.lanes:
        if isinstance(lane.targeting, Webhook) and wanted not in (0, running.port):
            lines.append((
                False, f"probe of {lane.name}",
                f"another program listens on port {wanted}, and the gateway asks that one; stop the daemon first",
            ))  # fmt: skip
            continue
        await lane.begin(conductor.orchestrators)
        try:
            lines += [await _probe(trial, lane, job) for job in _chosen(plan.jobs, lane)] or [
                (False, f"probe of {lane.name}", "no planned job may go through this gateway")
            ]
        finally:
            lane.end()
    return lines


def _chosen(jobs: Sequence[Job], lane: Lane) -> list[Job]:
    """Choose an llm job and another one: warm models first, then idle orchestrators, then cheap jobs."""
    able = sorted(
        (job for job in jobs if lane.suits(job)),
        key=lambda job: (not job.warm, job.capability.busy, job.price_wei or 0),
    )
    llm = next((job for job in able if job.pipeline == "llm"), None)
    other = next((job for job in able if job.pipeline != "llm"), None)
    return [job for job in (other, llm) if job is not None]


async def _probe(trial: Trial, lane: Lane, job: Job) -> Line:
    name = f"probe of {lane.name}"
    lane.took(job)
    try:
        sent = await trial.send(job, lane, lane.sent)
    finally:
        lane.answered(job)
    result = (await trial.judge(sent, lane)).result
    who = f"{job.pipeline} {job.model} at {job.target.service_uri}"
    how = f"{result.verdict.outcome.value} ({result.verdict.code}) in {result.round_trip_s:.1f} s"
    evidence = "; ".join(result.attribution.evidence)
    if job.pipeline == "llm" and b"multipart/form-data" in sent.exchange.body:
        return (False, name, f"{who}: this gateway's llm takes no JSON; use a newer image, see docs/gateway.md")
    followed = result.attribution.kind in (Kind.PROVEN, Kind.PRESUMED)
    if not followed:
        return (
            False,
            name,
            f"{who}: {how}; the gateway ignores which orchestrator the tester names: {evidence}",
        )
    served = "served, as evidence proves" if result.attribution.kind is Kind.PROVEN else "probably served, unproven"
    problem = "" if result.verdict.outcome is Outcome.PASSED else f": {result.verdict.message}"
    well = result.verdict.outcome is not Outcome.UNSCORED
    return (well, name, f"{who} {served}: {how}{problem}; {evidence}")
