"""Orchestrators with live runners on real TLS sockets, and a tester that knows them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.live_runner.client import LiveRunnerClient
from jobtester.live_runner.discovery import RunnerDiscovery
from jobtester.store.queries import Queries, ResultFilters
from jobtester.store.results import ResultRow
from tests.harness.ports import free_port
from tests.harness.waiting import TIMEOUT_S

LOOPBACK = ("127.0.0.0/8",)
# What a job deserves by the fault of the simulated runner or orchestrator that it met; others are never sent.
REASON_BY_FAULT = {
    "": "ok",
    "runner_slow": "ok",
    "runner_down": "app_down",
    "runner_busy": "busy",
    "runner_hangs": "timeout",
    "runner_wrong": "check:chat",
    "runner_fails": "app_error",
    "runner_resets": "app_cut_short",
    "runner_endless": "too_large",
    "runner_gone": "app_gone",
    "runner_redirects": "refuted",
    "runner_says_busy": "app_error",
    "runner_says_missing": "app_refused",
    "tls_breaks": "unreachable",
    "runner_price_unavailable": "app_price_unavailable",
    "runner_repeats_402": "payment_required",
    "runner_asks_more": "price_refused",
    "session_lost": "app_gone",
    "session_conflict": "session_conflict",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def own_error(status: int, text: str) -> web.Response:
    """Return an error as go-livepeer writes it: plain text, a line feed, and no guessing of types."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, body=f"{text}\n".encode(), headers=headers)


@dataclass(slots=True)
class FakeOrchestrator:
    """An orchestrator with live runners, as the contract has it: a list, and apps behind it with one slot each."""

    apps: dict[str, Handler] = field(default_factory=dict)
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    closes_after_discovery: bool = False
    asked: int = 0
    uri: str = ""
    discovery: Handler | None = None
    _site: web.TCPSite | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeOrchestrator]:
        """Serve over TLS with a certificate that nobody has signed."""
        app = web.Application(client_max_size=2**24)
        app.router.add_get("/discovery", self.discovery or self._discover)
        app.router.add_route("*", "/apps/{app}/app{path:/.*}", self._call)
        app.router.add_route("*", "/apps/{app}/session{path:.*}", self._call)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(files("jobtester.simulator").joinpath("orchestrator.pem")))
        port = free_port()
        self.uri = f"https://127.0.0.1:{port}"
        self._site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
        await self._site.start()
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _discover(self, _: web.Request) -> web.Response:
        self.asked += 1
        runners = [
            {
                "url": f"{self.uri}/apps/{app}/app",
                "app": f"someone/{app}",
                "mode": "single-shot",
                "capacity": 1,
                "capacity_used": 0,
                "capacity_available": 1,
                **self.changes.get(app, {}),
            }
            for app in self.apps
        ]
        for runner in runners:
            runner["url"] = str(runner["url"]).replace("{uri}", self.uri)
        if self.closes_after_discovery and self._site is not None:
            await self._site.stop()
        return web.json_response([{"address": self.uri, "runners": runners}])

    async def _call(self, request: web.Request) -> web.StreamResponse:
        app = request.match_info["app"]
        self.requests.append((request.method, request.match_info["path"], await request.read()))
        return await self.apps[app](request)


def answers(response: Callable[[], web.StreamResponse]) -> Handler:
    """Return an app that always answers so."""

    async def handle(_: web.Request) -> web.StreamResponse:
        return response()

    return handle


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    await asyncio.sleep(0)
    return web.Response()


async def chat(request: web.Request) -> web.Response:
    """Answer a chat as OpenAI's API does, with the word that is asked for."""
    question = (await request.json())["messages"][0]["content"]
    message = {"role": "assistant", "content": question.split()[-1]}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    return web.json_response({"object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})


@asynccontextmanager
async def fake_orchestrators(*nodes: FakeOrchestrator) -> AsyncIterator[list[dict[str, Any]]]:
    """Run these, and yield the tables with which static discovery knows them."""
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node.running())
        yield [{"address": f"0x{number:040x}", "service_uri": node.uri} for number, node in enumerate(nodes, 1)]


def make_tables(folder: Path, orchestrators: list[dict[str, Any]], **tables: Any) -> dict[str, Any]:
    """Return the tables of a config.toml whose gateway nobody runs, so that it can help with nothing."""
    return {
        "region": "FRA",
        "server": {"host": "127.0.0.1", "port": 0},
        "gateways": [{"name": "dead", "url": f"http://127.0.0.1:{free_port()}", "targeting": "query"}],
        "limits": {"busy_backoff": "10ms", "busy_patience": "50ms", "busy_retries": 2},
        "leaderboard": {"post": False},
        "store": {"path": str(folder / "jobtester.db")},
        "discovery": {"source": "static", "orchestrators": orchestrators},
        "live_runner": {"enabled": True, "networks": list(LOOPBACK)},
        "schedule": {"run_at_start": False},
        **tables,
    }


def config(folder: Path, orchestrators: list[dict[str, Any]], **tables: Any) -> Configuration:
    """Return a configuration of these tables."""
    return Configuration.from_tables(make_tables(folder, orchestrators, **tables), origin="test")


async def run_tick(configuration: Configuration) -> tuple[dict[str, ResultRow], dict[str, int]]:
    """Run one tick; return the results by pipeline, and how often each reason to skip was given."""
    async with open_daemon(configuration) as daemon:
        report = await asyncio.wait_for(daemon.run_once("test"), TIMEOUT_S)
        rows = await Queries(daemon.database).page(ResultFilters(), limit=1000)
        return {row.pipeline: row for row in rows}, dict(report.skipped)


@asynccontextmanager
async def runner_discovery(*, networks: tuple[str, ...] = LOOPBACK, **limits: Any) -> AsyncIterator[RunnerDiscovery]:
    """Open a client, and yield what asks orchestrators through it."""
    client = LiveRunnerClient(networks)
    await client.open()
    try:
        yield RunnerDiscovery(client, **limits)
    finally:
        await client.close()
