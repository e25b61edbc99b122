"""`jobtester check`: check the configuration and every peer, one line each, all problems at once."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from jobtester.cli.healthcheck import local_url
from jobtester.cli.unmatched import explain_absence
from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.daemon.daemon import Daemon
from jobtester.domain.attribution import AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.plan import SKIP_REASONS
from jobtester.domain.reasons import Outcome
from jobtester.domain.units import format_duration
from jobtester.errors import ConfigError, JobTesterError, PortInUseError
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.targeting import WebhookTargeting
from jobtester.live_runner.signer import RemoteSigner
from jobtester.settings.live_sections import CALLBACK_PORT
from jobtester.tick.attempt import JobAttempt
from jobtester.tick.attempt_builder import make_attempts

_PEER_TIMEOUT_S = 4.5  # all peers are asked at the same time
_REQUEST_TIMEOUT_S = _PEER_TIMEOUT_S - 0.5  # shorter, so that a peer's own message comes before the general one
_NEEDED_TO_POST = ("region: needed to post", "leaderboard.secret: needed to post")


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One line of the output."""

    is_ok: bool
    subject: str
    text: str
    is_note: bool = False

    def __str__(self) -> str:
        state = "note  " if self.is_note else "ok    " if self.is_ok else "FAILED"
        return f"{state}  {self.subject}: {self.text}"


def check(options: argparse.Namespace) -> int:
    """Check everything that a tick needs; return 0 if all is well, else 1."""
    configuration, lines = _load_configuration(options.config)
    configuration.apply_log_settings(quiet=True)
    enabled = sum(definition.enabled for definition in configuration.catalogue.values())
    lines += [
        CheckLine(True, "assets", f"every test input of {enabled} enabled pipelines is sound"),
        *asyncio.run(_check_peers(configuration, probe=options.probe)),
    ]
    for line in lines:
        print(line)  # noqa: T201
    return 0 if all(line.is_ok for line in lines) else 1


def _load_configuration(path: str) -> tuple[Configuration, list[CheckLine]]:
    """Load the configuration. If it only lacks what posting needs, go on without posting, so that the rest is checked.

    Raises ConfigError for every other problem.
    """
    try:
        configuration = Configuration.load(path)
    except ConfigError as error:
        posting_problems = [problem for problem in error.problems if problem.startswith(_NEEDED_TO_POST)]
        if not posting_problems or len(posting_problems) < len(error.problems):
            raise
        configuration = Configuration.load(path, {"leaderboard": {"post": False}})
        return configuration, [CheckLine(False, "configuration", problem) for problem in posting_problems]
    return configuration, [CheckLine(True, "configuration", f"{configuration.origin} is valid")]


async def _check_peers(configuration: Configuration, *, probe: bool) -> list[CheckLine]:
    # As no owner: beside a running daemon nothing of its ticks and its outbox may change.
    async with open_daemon(configuration, owner=False) as daemon:
        checks: list[tuple[str, Awaitable[str]]] = []
        for gateway in daemon.coordinator.gateways:
            checks.append((gateway.label, _check_gateway(gateway)))
            if gateway.client.cli_url:
                checks.append((f"{gateway.label}, CLI port", _check_cli_port(gateway)))
            if isinstance(gateway.targeting, WebhookTargeting):
                checks.append((f"webhook for {gateway.name}", _check_webhook(daemon, gateway)))
            if gateway.settings.overlap:
                checks.append((f"evidence for overlap on {gateway.name}", _check_evidence(gateway)))
        live_runner = daemon.coordinator.planner.inputs.live_runner
        if live_runner is not None and live_runner.signer is not None:
            checks.append(("signer for live runners", _check_signer(live_runner.signer)))
        checks.append(("discovery", _check_discovery(daemon)))
        checks.append(("live video", _check_live_video(daemon)))
        if daemon.delivery is not None:
            checks.append(("leaderboard", daemon.delivery.check()))
        lines = await asyncio.gather(*(_run_check(subject, pending) for subject, pending in checks))
        return [*lines, *_find_absent_pipelines(daemon), *(await _probe_gateways(daemon) if probe else ())]


async def _run_check(subject: str, pending: Awaitable[str]) -> CheckLine:
    try:
        async with asyncio.timeout(_PEER_TIMEOUT_S):
            return CheckLine(True, subject, await pending)
    except TimeoutError:
        return CheckLine(False, subject, f"no answer within {_PEER_TIMEOUT_S:g} s")
    except JobTesterError as error:
        return CheckLine(False, subject, str(error))


async def _check_gateway(gateway: Gateway) -> str:
    if problem := await gateway.client.find_problem(_REQUEST_TIMEOUT_S):
        raise JobTesterError(problem)
    return f"{gateway.client.url} answers"


async def _check_cli_port(gateway: Gateway) -> str:
    status, _ = await gateway.client.get_cli("/status", timeout_s=_REQUEST_TIMEOUT_S)
    return f"{gateway.client.cli_url} answers ({status})"


async def _check_evidence(gateway: Gateway) -> str:
    if gateway.evidence.metrics is None:
        return "an event sink is configured"
    status, _ = await gateway.client.get_cli("/metrics", timeout_s=_REQUEST_TIMEOUT_S)
    if status != 200:
        raise JobTesterError(f"{gateway.client.cli_url}/metrics answers {status}; run the gateway with -monitor=true")
    return "metrics can be read"


async def _check_webhook(daemon: Daemon, gateway: Gateway) -> str:
    """Ask the tester itself as the gateway will. Raises JobTesterError if it does not answer."""
    server = daemon.configuration.settings.server
    webhook_gateways = [other for other in daemon.coordinator.gateways if isinstance(other.targeting, WebhookTargeting)]
    path = f"/orchestrators/{gateway.name}" if len(webhook_gateways) > 1 else "/orchestrators"
    url = local_url(server.host, daemon.port) + path
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            if response.status != 200:
                raise JobTesterError(f"{url} answers {response.status}")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise JobTesterError(f"{url}: {error}; check server.host") from error
    return f"{path} answers; the gateway needs -orchWebhookUrl=http://<this host>:{server.port or '<port>'}{path}"


async def _check_signer(signer: RemoteSigner) -> str:
    return f"{signer.shown_url} answers; it pays from {await signer.payer()}"


async def _check_discovery(daemon: Daemon) -> str:
    planner = daemon.coordinator.planner
    # No patience: a tick waits for a gateway that has just started, a person wants to know now.
    orchestrators = await planner.discover(patience_s=0.0)
    if not orchestrators:
        raise JobTesterError("the gateway answers, but knows no orchestrators; one that has just started needs a while")
    plan = await planner.plan("check", orchestrators)
    return f"{len(orchestrators)} orchestrators, {len(plan.jobs)} jobs to send"


def _find_absent_pipelines(daemon: Daemon) -> list[CheckLine]:
    """Return a note for each pipeline that config.toml defines or changes and that nobody advertises."""
    planner = daemon.coordinator.planner
    catalogue = planner.effective_catalogue()
    if not planner.orchestrators:  # then that is the problem, and has a line of its own
        return []
    absences = {
        slug: explain_absence(slug, planner.orchestrators, catalogue)
        for slug in daemon.configuration.settings.pipelines
        if catalogue[slug].enabled
    }
    return [CheckLine(True, f"pipelines.{slug}", text, is_note=True) for slug, text in absences.items() if text]


async def _check_live_video(daemon: Daemon) -> str:
    """Listen for a moment as during a stream. Raises JobTesterError where nobody could be reached by it."""
    live_video = daemon.coordinator.planner.inputs.live_video
    if live_video is None:
        return f"not tested: {SKIP_REASONS['no_callback']}"
    settings = live_video.settings
    try:
        async with live_video.listener.listening():
            pass
    except PortInUseError as error:
        raise JobTesterError(f"{error}; only a running tester of yours may, while it tests live video") from error
    if settings.port not in (0, CALLBACK_PORT):
        return f"live_video.port is {settings.port}; a real gateway uses {CALLBACK_PORT} only"
    return f"{settings.host}:{settings.port} is free; gateways call {settings.callback_host} while a stream runs"


async def _probe_gateways(daemon: Daemon) -> list[CheckLine]:
    """Send two real jobs through each gateway, one of them llm, whose form depends on the gateway's version."""
    coordinator = daemon.coordinator
    orchestrators = coordinator.planner.orchestrators
    if not orchestrators:
        return [CheckLine(False, "probe", "no orchestrator was discovered, so there is no job to send")]
    plan = await coordinator.planner.plan("check", orchestrators)
    attempts = await make_attempts(coordinator.planner, coordinator.checker, coordinator.metrics, seed=plan.seed)
    lines: list[CheckLine] = []
    port = daemon.configuration.settings.server.port
    for gateway in coordinator.gateways:
        subject = f"probe of {gateway.name}"
        # A webhook gateway asks at the configured port. If a running daemon has that port, it would name orchestrators
        # to the gateway that have nothing to do with these jobs.
        if isinstance(gateway.targeting, WebhookTargeting) and port not in (0, daemon.port):
            text = f"another program listens on port {port}, and the gateway asks that one; stop the daemon first"
            lines.append(CheckLine(False, subject, text))
            continue
        await gateway.begin_tick(orchestrators)
        try:
            jobs = _choose_probe_jobs(plan.jobs, gateway)
            lines += [await _probe_gateway(attempts[gateway.walk(job)], gateway, job) for job in jobs]
            if not jobs:
                lines.append(CheckLine(False, subject, "no planned job may go through this gateway"))
        finally:
            gateway.end_tick()
    return lines


def _choose_probe_jobs(jobs: Sequence[Job], gateway: Gateway) -> list[Job]:
    """Return an llm job and another one: warm models first, then idle orchestrators, then cheap jobs."""
    candidates = sorted(
        (job for job in jobs if gateway.accepts(job)),
        key=lambda job: (not job.warm, job.capability.is_busy, job.price_wei or 0),
    )
    llm = next((job for job in candidates if job.pipeline == "llm"), None)
    other = next((job for job in candidates if job.pipeline != "llm"), None)
    return [job for job in (other, llm) if job is not None]


async def _probe_gateway(attempt: JobAttempt[Any], gateway: Gateway, job: Job) -> CheckLine:
    subject = f"probe of {gateway.name}"
    gateway.on_taken(job)
    try:
        sent = await attempt.send(job, gateway, gateway.on_sent)
    finally:
        gateway.on_answered(job)
    result = (await attempt.judge(sent, gateway)).result
    verdict, attribution = result.verdict, result.attribution
    name = f"{job.pipeline} {job.model} at {job.target.service_uri}"
    outcome = f"{verdict.outcome.value} ({verdict.code}) in {format_duration(result.round_trip_s)}"
    evidence = "; ".join(attribution.evidence)
    if job.pipeline == "llm" and b"multipart/form-data" in sent.exchange.body:
        text = f"{name}: this gateway's llm takes no JSON; use a newer image, see docs/gateway.md"
        return CheckLine(False, subject, text)
    if attribution.kind not in (AttributionKind.PROVEN, AttributionKind.PRESUMED):
        text = f"{name}: {outcome}; the gateway ignores which orchestrator the tester names: {evidence}"
        return CheckLine(False, subject, text)
    proof = "served, as evidence proves" if attribution.kind is AttributionKind.PROVEN else "probably served, unproven"
    problem = "" if verdict.outcome is Outcome.PASSED else f": {verdict.message}"
    return CheckLine(
        verdict.outcome is not Outcome.UNSCORED, subject, f"{name} {proof}: {outcome}{problem}; {evidence}"
    )
