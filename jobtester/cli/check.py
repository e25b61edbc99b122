"""`jobtester check`: the configuration and every peer, one line each, all problems at once."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable

import aiohttp

from jobtester import configuration, daemon
from jobtester.configuration import Configuration
from jobtester.daemon import Daemon
from jobtester.errors import JobTesterError
from jobtester.gateway.lane import Lane
from jobtester.gateway.targeting import Webhook

Line = tuple[bool, str, str]


def check(options: argparse.Namespace) -> int:
    """Try everything that a tick needs; 0 if all is well."""
    loaded = configuration.with_logs(configuration.load(options.config), quiet=True)
    enabled = sum(definition.enabled for definition in loaded.catalogue.values())
    lines: list[Line] = [
        (True, "configuration", f"{loaded.origin} is valid"),
        (True, "assets", f"every test input of {enabled} enabled pipelines is sound"),
        *asyncio.run(_peers(loaded)),
    ]
    for well, name, text in lines:
        print(f"{'ok    ' if well else 'FAILED'}  {name}: {text}", file=sys.stdout)  # noqa: T201
    return 0 if all(well for well, *_ in lines) else 1


async def _peers(loaded: Configuration) -> list[Line]:
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
        return [await _line(name, trying) for name, trying in tries]


async def _line(name: str, trying: Awaitable[str]) -> Line:
    try:
        return (True, name, await trying)
    except JobTesterError as error:
        return (False, name, str(error))


async def _gateway(lane: Lane) -> str:
    if not await lane.client.alive():
        raise JobTesterError(f"nothing answers at {lane.client.url}; check gateways.url and that the gateway runs")
    return f"{lane.client.url} answers"


async def _cli(lane: Lane) -> str:
    status, _ = await lane.client.cli("/status", timeout_s=10)
    return f"{lane.client.cli_url} answers ({status})"


async def _evidence(lane: Lane) -> str:
    if lane.evidence.metrics is None:
        return "an event sink is configured"
    status, _ = await lane.client.cli("/metrics", timeout_s=10)
    if status != 200:
        raise JobTesterError(f"{lane.client.cli_url}/metrics answers {status}; run the gateway with -monitor=true")
    return "metrics can be read"


async def _webhook(running: Daemon, lane: Lane) -> str:
    several = sum(isinstance(one.targeting, Webhook) for one in running.conductor.lanes) > 1
    path = f"/orchestrators/{lane.name}" if several else "/orchestrators"
    url = f"http://127.0.0.1:{running.port}{path}"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            if answer.status != 200:
                raise JobTesterError(f"{url} answers {answer.status}")
    except aiohttp.ClientError as error:
        raise JobTesterError(f"{url}: {error}") from error
    port = running.configuration.settings.server.port
    return f"{path} answers; the gateway needs -orchWebhookUrl=http://<this host>:{port}{path}"


async def _discovery(running: Daemon) -> str:
    found = await running.conductor.discover()
    if not found:
        raise JobTesterError("the gateway answers, but knows no orchestrators")
    jobs = len((await running.conductor.plan("check", found)).jobs)
    return f"{len(found)} orchestrators, {jobs} jobs to send"
