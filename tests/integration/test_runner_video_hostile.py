"""Video apps that answer with anything but video: each stream ends in time with one reason, and its session is over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.harness.busy_machine import repeat_when_frames_are_late, require_frames_on_time
from tests.harness.live_runners import FakeOrchestrator, Handler, config, fake_orchestrators, own_error, run_tick
from tests.harness.runner_video import VIDEO

ECHO = {"timeout": "3s", "cold_timeout": "3s", "video": {**VIDEO, "duration": "2s"}}
SEQUENCE = {"Lp-Trickle-Seq": "0", "Content-Type": "video/MP2T"}
Output = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def endless_garbage(request: web.Request) -> web.StreamResponse:
    """Send random bytes as fast as they are taken."""
    response = web.StreamResponse(headers=SEQUENCE)
    await response.prepare(request)
    garbage = os.urandom(65_536)
    while True:
        await response.write(garbage)


async def page(_: web.Request) -> web.StreamResponse:
    """Send a page where a segment belongs."""
    return web.Response(body=b"<html></html>", content_type="text/html")


async def error(_: web.Request) -> web.StreamResponse:
    """Send an error."""
    return own_error(500, "Internal Server Error")


async def missing(_: web.Request) -> web.StreamResponse:
    """Know no such channel."""
    return own_error(404, "Stream not found")


async def redirect(_: web.Request) -> web.StreamResponse:
    """Send the reader to an address that it must not ask."""
    return web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"})


async def silence(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    return web.Response()


async def far_ahead(_: web.Request) -> web.StreamResponse:
    """Claim that the newest segment has an absurd number."""
    return web.Response(status=470, headers={"Lp-Trickle-Seq": "0", "Lp-Trickle-Latest": "9" * 30})


def video_app(node: FakeOrchestrator, output: Output, input_status: int = 200) -> Handler:
    """Return an app with a session whose channels it serves itself."""

    async def handle(request: web.Request) -> web.StreamResponse:
        base, path = f"{node.uri}/apps/echo/session", request.match_info["path"]
        if path == "":
            return web.json_response({"session_id": "s1", "app_url": f"{base}/s1/app", "control_url": f"{base}/s1"})
        if path == "/s1/stop":
            return web.Response(status=204)
        if path == "/s1/app/echo":
            return web.json_response({"in": f"{base}/s1/in", "out": f"{base}/s1/out"})
        if path.startswith("/s1/in"):
            return web.Response(status=input_status)
        return await output(request) if request.method == "GET" else web.Response()

    return handle


@pytest.mark.parametrize(
    ("output", "input_status", "reason"),
    [
        (endless_garbage, 200, "check:video"),
        (page, 200, "check:video"),
        (error, 200, "no_frames"),
        (missing, 200, "no_frames"),
        (redirect, 200, "no_frames"),
        (far_ahead, 200, "no_frames"),
        (silence, 200, "no_frames"),
        (silence, 500, "no_frames"),
        (silence, 404, "no_frames"),
    ],
)
@repeat_when_frames_are_late
async def test_channels_without_video(output: Output, input_status: int, reason: str, tmp_path: Path) -> None:
    """Whatever the channels answer, the stream ends within its limits, and the session is stopped."""
    node = FakeOrchestrator()
    node.apps["echo"] = video_app(node, output, input_status)
    async with fake_orchestrators(node) as tables:
        node.changes["echo"] = {"mode": "persistent", "url": "{uri}/apps/echo/session"}
        results, skipped = await run_tick(config(tmp_path, tables, pipelines={"runner-video-echo": ECHO}))
        (row,) = results.values()
        assert skipped == {}
        require_frames_on_time(row)
        assert row.reason == reason, row.message
        assert row.attribution == "proven"
        assert 0 < row.round_trip_s < 4
        stops = [path for method, path, _ in node.requests if method == "POST" and path == "/s1/stop"]
        assert len(stops) == 1
        assert "127.0.0.1:9/" not in row.message


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"null", "check:channels"),
        (b"", "check:channels"),
        (b"[1]", "check:channels"),
        (b'{"in": "x"}', "check:channels"),
        (b'{"in": "http://169.254.169.254/a", "out": "http://169.254.169.254/b"}', "refuted"),
    ],
)
async def test_answers_without_channels(answer: bytes, reason: str, tmp_path: Path) -> None:
    """An app that names no channels never passes, and nothing is sent to another host."""
    node = FakeOrchestrator()
    serve = video_app(node, silence)

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.match_info["path"] == "/s1/app/echo":
            return web.Response(body=answer, content_type="application/json")
        return await serve(request)

    node.apps["echo"] = handle
    async with fake_orchestrators(node) as tables:
        node.changes["echo"] = {"mode": "persistent", "url": "{uri}/apps/echo/session"}
        results, _ = await run_tick(config(tmp_path, tables, pipelines={"runner-video-echo": ECHO}))
        (row,) = results.values()
        assert row.reason == reason
        assert [path for _, path, _ in node.requests] == ["", "/s1/app/echo", "/s1/stop"]
