"""Streamed completions: time to the first token and tokens/s, measured, exported, and safe from hostile streams."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.simulator.scenario import ByocSpec, GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from jobtester.store.queries import Queries, ResultFilters
from jobtester.store.results import ResultRow
from tests.harness.simulated import simulated_tester

LLM, BYOC = "llm", "openai-chat-completions"
LONG = "stuck"  # takes as long as the time limit: tried as a warm llm alone, whose limit is short
TALK = {
    "variants": [],
    "parameters": {"messages": [{"role": "user", "content": "Tell me something about bears"}]},
}  # fmt: skip


def network() -> Scenario:
    """Build one orchestrator that writes, as a batch pipeline and as an external capability."""
    node = OrchestratorSpec(
        address="0x" + "1" * 40,
        service_uri="https://writer.sim.example:8935",
        models=(ModelSpec(LLM, "m", latency_s=(0.1, 0.1)),),
        byoc=(ByocSpec(BYOC, "e", latency_s=(0.1, 0.1)),),
    )
    return Scenario("stream", 1, (GatewaySpec("gateway", mode="query"),), (node,))


async def samples(session: aiohttp.ClientSession, base: str) -> dict[tuple[str, str], float]:
    """Read the metrics of passed warm jobs by name and pipeline."""
    async with session.get(f"{base}/metrics") as answer:
        families = list(text_string_to_metric_families(await answer.text()))
    return {
        (sample.name, sample.labels["pipeline"]): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("warm") == "true" and "le" not in sample.labels
    }


async def test_first_token_and_rate_are_recorded_and_exported(tmp_path: Path) -> None:
    """With `stream = true`, of both forms of streams: in results, API, page and metrics."""
    pipelines = {LLM: {"stream": True, **TALK}, BYOC: {"stream": True, **TALK}}
    async with simulated_tester(network(), tmp_path, pipelines=pipelines) as tester, aiohttp.ClientSession() as session:
        report = await tester.tick()
        assert report.outcomes == {"passed": 2}
        base = f"http://127.0.0.1:{tester.daemon.port}"
        exported = await samples(session, base)
        for row in await tester.results():
            first, rate = row.measures["first_token_s"], row.measures["tokens_per_s"]
            assert 0.1 <= first < row.round_trip_s, "the orchestrator thinks for a tenth of a second before it writes"
            assert 1 < rate < 11 / 0.08, "eleven tokens, a word each hundredth of a second"
            assert json.loads(row.request)["stream"] is True
            async with session.get(f"{base}/api/results/{row.id}") as answer:
                assert (await answer.json())["measures"] == row.measures
            async with session.get(f"{base}/r/{row.id}") as page:
                assert "first token" in await page.text()
            assert exported["jobtester_first_token_seconds_count", row.pipeline] == 1
            assert exported["jobtester_first_token_seconds_sum", row.pipeline] == pytest.approx(first)
            assert exported["jobtester_tokens_per_second_sum", row.pipeline] == pytest.approx(rate)


async def test_streaming_is_off_by_default(tmp_path: Path) -> None:
    """An error in a stream may bring a gateway down: nobody's is streamed through without being asked for."""
    async with simulated_tester(network(), tmp_path) as tester, aiohttp.ClientSession() as session:
        assert (await tester.tick()).outcomes == {"passed": 2}
        for row in await tester.results():
            assert json.loads(row.request)["stream"] is False
            assert set(row.measures) == {"tokens_per_s"}
        exported = await samples(session, f"http://127.0.0.1:{tester.daemon.port}")
        assert exported["jobtester_first_token_seconds_count", LLM] == 0


def event(content: str | None = None, *, reason: str | None = None, **more: Any) -> bytes:
    """Write one event of a completion."""
    delta = {"role": "assistant"} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return f"data: {json.dumps({'id': 'c', 'choices': [choice], **more})}\n\n".encode()


DONE = b"data: [DONE]\n\n"
TWELVE = (event("bears "), "pause", *(event("are "),) * 11)  # tokens, each in an event
STREAMS: dict[str, tuple[tuple[bytes | str, ...], str]] = {
    "as-it-should-be": ((event(), event("bears"), event("", reason="stop")), "ok"),
    "done-without-reason": ((event("bears"), DONE), "ok"),
    "no-done-no-reason": ((event("bears"), event(" are")), "check:chat"),
    "done-alone": ((DONE,), "bad_json"),
    "nothing-said": ((event(), event("", reason="stop"), DONE), "check:chat"),
    "error-amid": ((event("bears"), b'data: {"error":{"message":"out of memory"}}\n\n'), "check:body"),
    "ended-by-error": ((event("bears"), event("", reason="error")), "check:chat"),
    "unreadable-event": ((event("bears"), b"data: {oops\n\n"), "bad_json"),
    "nan": ((b'data: {"choices":[{"delta":{"content":"x"},"index":NaN}]}\n\n',), "bad_json"),
    "deep": ((b"data: " + b'{"choices":' * 20_000 + b"\n\n",), "bad_json"),
    "huge-line": ((b"data: " + b"x" * 900_000 + b"\n\n",), "bad_json"),
    "huge-text": ((event("bears " * 100_000, reason="stop"),), "check:chat"),
    "empty-lines-for-ever": ((event("bears"), "endless"), "too_large"),
    "thousands-of-events": ((*(event("b") for _ in range(3000)), event("", reason="stop")), "ok"),
    "choices-of-all-kinds": ((b'data: {"choices":[null]}\n\ndata: {"choices":7}\n\n', event("x", reason="stop")), "ok"),
    "lines-ended-by-returns": ((event("bears", reason="stop").replace(b"\n", b"\r"),), "ok"),
    "split-within-a-token": ((event()[:-2] + b"\n\n" + event("bears")[:60], "pause", event("bears")[60:], DONE), "ok"),
    "json-instead": ((b'{"choices":[{"message":{"content":"bears"},"finish_reason":"stop"}]}',), "ok"),
    "counted-twice": ((*TWELVE, event("", reason="stop", usage={"completion_tokens": 24})), "ok"),
    "counted-once": ((*TWELVE, event("", reason="stop", usage={"completion_tokens": 12})), "ok"),
    "cut": ((event("bears"), "abort"), "gateway_fault"),
    "stuck": ((event("bears"), "hang"), "timeout"),
    "gzip": ((b"\x1f\x8b\x08\x00",), "bad_json"),
}  # fmt: skip


async def stream(request: web.Request) -> web.StreamResponse:
    """Be a gateway that relays what the orchestrator named in the request writes."""
    named = request.query.get("orchestrator", "")
    if "Livepeer" in request.headers:
        header = json.loads(base64.b64decode(request.headers["Livepeer"]))
        (named,) = json.loads(header["parameters"])["orchestrators"]["include"]
    await request.read()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Orchestrator-Url": named})
    await response.prepare(request)
    for piece in STREAMS[named.removeprefix("https://").partition(".")[0]][0]:
        match piece:
            case bytes():
                await response.write(piece)
            case "pause":
                await asyncio.sleep(0.05)
            case "hang":
                await asyncio.Event().wait()
            case "abort":
                assert request.transport is not None
                request.transport.abort()
            case _:
                while True:
                    await response.write(b"\n" * 4096)
    return response


@asynccontextmanager
async def hostile(folder: Path) -> AsyncIterator[list[ResultRow]]:
    """Test an orchestrator for each stream, for both pipelines, in one tick; give the results."""
    app = web.Application()
    app.router.add_post("/{path:.*}", stream)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    writes: list[dict[str, Any]] = [
        {"pipeline": LLM, "model": "m", "warm": False},
        {"pipeline": BYOC, "model": "e", "warm": False, "byoc": True},
    ]
    content = {
        "server": {"host": "127.0.0.1", "port": 0},
        "gateways": [
            {"url": f"http://127.0.0.1:{runner.addresses[0][1]}", "targeting": "query", "metrics": False}
        ],
        "limits": {"max_response": "1MiB", "grace": "1s"},
        "leaderboard": {"post": False},
        "store": {"path": str(folder / "jobtester.db")},
        "discovery": {
            "source": "static",
            "orchestrators": [
                {
                    "address": f"0x{number:040x}",
                    "service_uri": f"https://{name}.example",
                    "capabilities": [{"pipeline": LLM, "model": "m"}] if name == LONG else writes,
                }
                for number, name in enumerate(STREAMS)
            ],
        },
        "pipelines": {
            LLM: {"stream": True, "timeout": "2s", "cold_timeout": "60s", **TALK},
            BYOC: {"stream": True, "cold_timeout": "60s", **TALK},
        },
    }  # fmt: skip
    try:
        async with open_daemon(Configuration.from_tables(content, origin="test")) as running:
            await running.run_once("test")
            yield await Queries(running.database).page(ResultFilters(), limit=1000)
    finally:
        await runner.cleanup()


async def test_hostile_streams_end_with_a_reason_each(tmp_path: Path) -> None:
    """Without an end, with errors, cut, stuck, huge or deep: one tick judges them all, and none breaks anything."""
    async with hostile(tmp_path) as rows:
        results = {(row.pipeline, row.service_uri.removeprefix("https://").partition(".")[0]): row for row in rows}
    assert {key: row.reason for key, row in results.items()} == {
        (pipeline, name): reason
        for pipeline in (LLM, BYOC)
        for name, (_, reason) in STREAMS.items()
        if (pipeline, name) != (BYOC, LONG)
    }
    for (_, name), row in results.items():
        if row.outcome == "passed":
            assert 0 < row.measures["first_token_s"] <= row.round_trip_s, name
        else:
            assert row.measures == {}
    for pipeline in (LLM, BYOC):
        for name, notes in (("counted-twice", ["token_count"]), ("counted-once", [])):
            row = results[pipeline, name]
            writing = row.round_trip_s - row.measures["first_token_s"]
            assert row.measures["tokens_per_s"] == pytest.approx(12 / writing, rel=0.01), name
            assert [note["note"] for note in row.notes if note["check"] == "chat" and note["note"] != "usage"] == notes
        assert results[pipeline, "split-within-a-token"].measures["first_token_s"] >= 0.05
