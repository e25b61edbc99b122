"""Where live runners come from besides discovery: further service URIs, and directories of several orchestrators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from jobtester.domain.orchestrators import Orchestrator
from tests.harness.live_runners import (
    FakeOrchestrator,
    Handler,
    answers,
    config,
    fake_orchestrators,
    hang_up,
    own_error,
    run_tick,
    runner_discovery,
)
from tests.harness.ports import free_port
from tests.harness.waiting import TIMEOUT_S

OK = answers(lambda: web.Response(text="hello"))
NOT_SUPPORTED = answers(lambda: own_error(404, "live runners are not supported"))


@asynccontextmanager
async def directory(handler: Handler) -> AsyncIterator[str]:
    """Serve a directory on this machine, where the tester asks no orchestrator; yield its address."""
    app = web.Application()
    app.router.add_get("/v1/discovery/raw", handler)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/v1/discovery/raw"
    finally:
        await runner.cleanup()


def entry(uri: str, app: str = "hello-world", **changes: Any) -> dict[str, Any]:
    """Return what a directory lists of one orchestrator."""
    runner = {"url": f"{uri}/apps/{app}/app", "app": f"someone/{app}", "mode": "single-shot", "capacity": 1}
    return {"address": uri, "score": 1, "capabilities": [], "runners": [runner | changes]}


def lists(*entries: object) -> Handler:
    """Return a directory that lists these."""
    return answers(lambda: web.json_response(list(entries)))


async def test_a_further_url_needs_an_address(tmp_path: Path) -> None:
    """Its apps are found; they are tested under the address that the configuration has for it, else skipped."""
    discovered, configured_node = FakeOrchestrator({"known": OK}), FakeOrchestrator({"hello-world": OK})
    tables = {"enabled": True, "networks": ["127.0.0.0/8"]}
    async with fake_orchestrators(discovered, configured_node) as (first, second):
        tables["urls"] = [configured_node.uri + "/", discovered.uri, configured_node.uri]
        results, skipped = await run_tick(config(tmp_path, [first], live_runner=tables))
        assert not results
        assert skipped == {"no_definition": 1, "no_address": 1}
        async with runner_discovery(urls=tables["urls"]) as discovery:
            configured = [Orchestrator(second["address"], configured_node.uri)]
            extended = await discovery.add_runners([Orchestrator(first["address"], discovered.uri)], configured)
    assert [(orchestrator.address, len(orchestrator.capabilities)) for orchestrator in extended] == [
        (first["address"], 1), (second["address"], 1)
    ]  # fmt: skip


async def test_a_directory_speaks_for_those_that_do_not_answer(tmp_path: Path) -> None:
    """Only for orchestrators that are known; what an orchestrator lists itself comes before, and foreign stays so."""
    silent, speaking = FakeOrchestrator({"hello-world": OK, "foreign": OK}, discovery=NOT_SUPPORTED), FakeOrchestrator()
    async with fake_orchestrators(silent, speaking) as orchestrators:
        content = lists(
            entry(silent.uri),
            entry(silent.uri, "foreign", url="https://other.example/apps/foreign/app"),
            entry(speaking.uri, "stale"),
            entry("https://unknown.example:8935"),
        )
        async with directory(content) as url:
            live_runner = {"enabled": True, "networks": ["127.0.0.0/8"], "directories": [url]}
            results, skipped = await run_tick(config(tmp_path, orchestrators, live_runner=live_runner))
    assert {(row.orchestrator, name): row.reason for name, row in results.items()} == {
        (orchestrators[0]["address"], "someone/hello-world"): "ok"
    }
    assert skipped == {"foreign_url": 1}


async def test_a_directory_costs_nobody_a_score(tmp_path: Path) -> None:
    """A directory may be out of date, so a failure of what it alone lists is not scored."""
    silent = FakeOrchestrator({"hello-world": answers(lambda: own_error(404, "runner not found"))}, discovery=hang_up)
    async with fake_orchestrators(silent, FakeOrchestrator()) as tables, directory(lists(entry(silent.uri))) as url:
        live_runner = {"enabled": True, "networks": ["127.0.0.0/8"], "directories": [url]}
        results, _ = await run_tick(config(tmp_path, tables, live_runner=live_runner))
    result = results["someone/hello-world"]
    assert (result.outcome, result.reason) == ("unscored", "unlisted")
    assert "app_gone" in result.message


async def test_a_directory_that_is_of_no_use_hides_nothing() -> None:
    """One that fails, lies about its form, or is too large is left out; the next one and the orchestrators count."""
    silent, speaking = FakeOrchestrator({"b": OK}, discovery=NOT_SUPPORTED), FakeOrchestrator({"a": OK})
    handlers = [
        answers(lambda: web.Response(status=500)),
        answers(lambda: web.Response(text="<html>")),
        answers(lambda: web.Response(body=b"[" * 100_000)),
        answers(lambda: web.Response(body=b'["' + b"x" * 2**21 + b'"]')),
        lists(7),
        lists({"address": None, "runners": 3}, {"runners": [{}]}, {"address": ["x"]}),
        hang_up,
    ]
    async with fake_orchestrators(silent, speaking) as tables:
        orchestrators = [Orchestrator(table["address"], table["service_uri"]) for table in tables]
        for handler in handlers:
            async with directory(handler) as useless, directory(lists(entry(silent.uri, "b"))) as useful:
                for urls in ([useless], [useless, useful]):
                    async with runner_discovery(directories=urls, timeout_s=TIMEOUT_S) as discovery:
                        extended = await discovery.add_runners(orchestrators)
                    assert [len(orchestrator.capabilities) for orchestrator in extended] == [len(urls) - 1, 1]
