"""Links lead to their pages, filters outlive paging, and empty pages explain themselves."""

from __future__ import annotations

import asyncio
import html
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from jobtester.logs import configure_logs
from jobtester.metrics import Metrics
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec, Scenario
from jobtester.web.context import CLOSING, CONTEXT, WebContext
from jobtester.web.pages import KEEPALIVE_S, stream_progress
from tests.harness.simulated import SimulatedTester, simulated_tester


def scenario(orchestrators: int = 2, *, fault_share: float = 0.0, latency_s: float = 0.01) -> Scenario:
    """Make a quick network whose gateway takes several jobs at once."""
    return generate(
        seed=11,
        orchestrators=orchestrators,
        models_per_pipeline=1,
        pipelines=("llm",),
        latency_s=(latency_s, latency_s),
        fault_share=fault_share,
        fault_probability=1.0,
        fault_names=("garbage_json",),
        gateways=(GatewaySpec(name="gateway", mode="query", retry_window=0.1),),
    )


async def read(session: aiohttp.ClientSession, tester: SimulatedTester, path: str, status: int = 200) -> str:
    """Open a page."""
    async with session.get(f"http://127.0.0.1:{tester.daemon.port}{path}") as answer:
        text = await answer.text()
        assert answer.status == status, (path, text)
        assert answer.content_type == "text/html"
        return text


async def test_a_fresh_tester_explains_its_empty_tables(tmp_path: Path) -> None:
    """Before the first tick no table is empty without a word, and nothing leads to a page that is not there."""
    async with simulated_tester(scenario(), tmp_path) as tester, aiohttp.ClientSession() as session:
        overview = await read(session, tester, "/")
        assert "No tick has run yet." in overview
        assert "No results yet." in overview
        assert re.search(r'data-live="tick" href="/t/" hidden', overview)
        assert "<table" not in overview
        assert "Every stat is delivered." in await read(session, tester, "/outbox")


@pytest.mark.parametrize("path", [f"/o/0x{7:040x}", "/r/nosuch", "/t/nosuch", "/o/<b>"])
async def test_what_does_not_exist_has_a_page_that_explains_it(path: str, tmp_path: Path) -> None:
    """An unknown orchestrator, result or tick is a 404 for people, with what it may be and a way back."""
    async with simulated_tester(scenario(), tmp_path) as tester, aiohttp.ClientSession() as session:
        text = await read(session, tester, path, 404)
        assert re.search("has (no recorded result|this address)\\.", text)
        assert '<a href="/">Overview</a>' in text
        assert path.rpartition("/")[2] not in text


async def test_older_results_stay_filtered(tmp_path: Path) -> None:
    """From page to page by the link that stands there: every failed result once, none of another outcome."""
    async with simulated_tester(scenario(160, fault_share=0.7), tmp_path) as tester, aiohttp.ClientSession() as session:
        report = await tester.tick()
        failed = {row.id for row in await tester.results() if row.outcome == "failed"}
        assert 50 < len(failed) < report.settled
        seen: list[str] = []
        path = "?outcome=failed"
        while path:
            text = await read(session, tester, f"/t/{report.tick}{path}")
            table = text[text.index('<h2 id="results">') :]
            assert 'aria-current="true">failed</a>' in table
            seen += re.findall(r'<td class="when"><a href="/r/(\w+)"', table)
            older = re.search(r'<a href="([^"]+)">older results</a>', table)
            path = html.unescape(older[1]).partition("#")[0] if older else ""
        assert len(seen) == len(set(seen))
        assert set(seen) == failed


async def test_a_restarted_tester_shows_its_newest_tick(tmp_path: Path) -> None:
    """Until it runs one itself, the overview has the numbers of the last recorded tick."""
    async with simulated_tester(scenario(3), tmp_path) as tester:
        report = await tester.tick()
    async with simulated_tester(scenario(3), tmp_path) as tester, aiohttp.ClientSession() as session:
        overview = await read(session, tester, "/")
        assert f'href="/t/{report.tick}">{report.tick}</a>' in overview
        assert f'<span data-live="finished">{report.settled}</span>' in overview
        assert f'<dd data-live="passed">{report.outcomes["passed"]}</dd>' in overview


@pytest.mark.slow
async def test_a_page_that_is_closed_is_no_error(tmp_path: Path) -> None:
    """People leave while progress is being sent to them, which is not logged."""
    many = scenario(12, latency_s=0.6)
    async with simulated_tester(many, tmp_path, limits={"jobs": 2}) as tester:
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", tester.daemon.port)
            writer.write(b"GET /live HTTP/1.1\r\nHost: tester\r\n\r\n")
            await reader.readuntil(b"data: ")
            writer.transport.abort()
        written = io.StringIO()
        configure_logs("info", "json", written)
        try:
            await tester.tick()
        finally:
            configure_logs("error", "json", sys.stderr)
    assert '"event":"tick_done"' in written.getvalue()
    assert "request_crashed" not in written.getvalue()


async def test_a_stream_without_news_sends_keepalives() -> None:
    """Between ticks nothing changes for an hour, and a proxy in front would close what it takes for dead."""
    context = SimpleNamespace(progress=lambda: None, next_tick_at=lambda: None, metrics=Metrics())
    app = web.Application()
    app[CONTEXT] = cast("WebContext", context)
    app[CLOSING] = asyncio.Event()
    app[KEEPALIVE_S] = 0.0
    app.router.add_get("/live", stream_progress)
    async with TestServer(app) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"GET /live HTTP/1.1\r\nHost: tester\r\n\r\n")
        try:
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                first, second = [await reader.readuntil(b"\n\n") for _ in range(2)]
        finally:
            app[CLOSING].set()
            writer.close()
    assert b"X-Accel-Buffering: no" in head
    assert first.partition(b"data: ")[2] == second.partition(b"data: ")[2]


async def test_an_address_that_does_not_exist_has_a_page_for_browsers(tmp_path: Path) -> None:
    """With the way back; programs get their line of text, and the address itself is not repeated."""
    async with simulated_tester(scenario(1), tmp_path) as tester, aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{tester.daemon.port}"
        for path in ("/nothing", "/r/", "/o/a/b"):
            async with session.get(base + path, headers={"Accept": "text/html,*/*"}) as answer:
                text = await answer.text()
                assert (answer.status, "<h1>Not found</h1>" in text) == (404, True), path
                assert "nothing" not in text.partition("<main")[2]
                assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
            async with session.get(base + path) as answer:
                assert (answer.status, await answer.text()) == (404, "404: Not Found"), path
