"""Call the app of a runner for one request, and pass its answer on."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from aiohttp import web

from jobtester.simulator.live_runner import errors
from jobtester.simulator.live_runner.apps import AppRequest, AppResponse, create_own_error, run_app
from jobtester.simulator.live_runner.errors import RequestRefusedError
from jobtester.simulator.live_runner.runner import LiveRunner, Session
from jobtester.simulator.live_runner.video_apps import VideoApps
from jobtester.simulator.orchestrator import Orchestrator

_CHUNK_S = 0.01
_SLOW_FACTOR = 10.0
_MAX_FILES = 1000
_ENDLESS_CHUNK = b" " * 65_536


@dataclass(slots=True)
class RunnerCall:
    """One request to a runner on its way; what it holds at the end is logged."""

    kind: str
    request: web.Request
    received_at: float = field(default_factory=time.monotonic)
    runner: LiveRunner | None = None
    path: str = ""
    fault: str = ""
    session_id: str = ""
    manifest_id: str = ""
    paid_wei: int = 0
    outcome: str = "served"
    error: str = ""


class AppCaller:
    """Calls the apps of one orchestrator's runners, and keeps the files that their answers name."""

    def __init__(self, node: Orchestrator, video_apps: VideoApps) -> None:
        self._node, self._video_apps = node, video_apps
        self._files: OrderedDict[str, bytes] = OrderedDict()

    def find_file(self, name: str) -> bytes | None:
        """Return a file by the last part of its URL; None if there is none, or too many newer ones."""
        return self._files.get(name)

    async def call_app(
        self, call: RunnerCall, runner: LiveRunner, session: Session, base_url: str
    ) -> web.StreamResponse:
        """Call the app for a request that has a slot or a session; `base_url` is the service URI."""
        if call.fault == "runner_down":
            raise RequestRefusedError(502, errors.APP_UNREACHABLE)
        if call.fault == "runner_hangs":
            await asyncio.Event().wait()
        control_url = f"{base_url}/apps/{runner.url_name}/session/{session.session_id}"
        request = call.request
        app_request = AppRequest(
            method=request.method,
            path=call.path,
            query=request.query_string,
            content_type=request.headers.get("Content-Type", ""),
            headers={
                "Livepeer-Runner-Route": f"{base_url}/apps/{runner.url_name}",
                "Livepeer-Runner-Session-Id": session.session_id,
                "Livepeer-Session-Token": session.token,
                "Livepeer-Session-Control": control_url,
            },
            body=await request.read(),
        )
        latency_s = runner.draw_latency()
        await asyncio.sleep(latency_s * _SLOW_FACTOR if call.fault == "runner_slow" else latency_s)
        if runner.spec.app_kind == "echo" and request.headers.get("Upgrade", "").lower() == "websocket":
            return await _echo_messages(request)
        if call.fault in ("runner_resets", "runner_endless"):
            return await self._send_broken_body(call)
        app_response = create_own_error(call.fault, is_session=runner.spec.mode == "persistent")
        if app_response is None and runner.spec.app_kind == "video":
            app_response = self._open_video(call, runner, session, base_url)
        if app_response is None:
            app_response = await asyncio.to_thread(run_app, runner.spec, app_request, call.fault)
        if app_response.status >= 300:
            call.outcome = "app_error"
        return await self._pass_through(request, app_response, base_url)

    def _open_video(self, call: RunnerCall, runner: LiveRunner, session: Session, base_url: str) -> AppResponse:
        if call.path != "/echo":
            return AppResponse(404, b'{"detail": "Not Found"}')
        if call.request.method != "POST":
            return AppResponse(405, b'{"detail": "Method Not Allowed"}')
        spec = self._node.spec.live
        urls = self._video_apps.open(session, call.fault, spec, base_url, runner.lose_sessions)
        return AppResponse(body=json.dumps(urls).encode())

    async def _pass_through(self, request: web.Request, app_response: AppResponse, base_url: str) -> web.StreamResponse:
        headers = {"Content-Type": app_response.content_type, **app_response.headers}
        if not app_response.chunks:
            body = app_response.body
            if app_response.file:
                body = body.replace(b"{file}", self._store_file(app_response.file, base_url).encode(), 1)
            return web.Response(status=app_response.status, body=body, headers=headers)
        response = web.StreamResponse(status=app_response.status, headers=headers)
        await response.prepare(request)
        for chunk in app_response.chunks:
            await response.write(chunk)
            await asyncio.sleep(_CHUNK_S)
        return response

    def _store_file(self, content: bytes, base_url: str) -> str:
        """Keep a file for as long as there are not too many newer ones, and return its URL."""
        name = f"{os.urandom(8).hex()}.png"
        self._files[name] = content
        if len(self._files) > _MAX_FILES:
            self._files.popitem(last=False)
        return f"{base_url}/files/{name}"

    async def _send_broken_body(self, call: RunnerCall) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if call.fault == "runner_resets":
            response.content_length = 4096
        await response.prepare(call.request)
        await response.write(b'{"text":"')
        try:
            while call.fault == "runner_endless":
                await response.write(_ENDLESS_CHUNK)
                await asyncio.sleep(0.001)
        except ConnectionResetError:  # a client that reads with a limit leaves such a body
            call.outcome = "disconnected"
            return response
        return break_connection(call, response)


def break_connection(call: RunnerCall, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Break the client's connection, and return a response that it no longer gets."""
    call.outcome = "broken"
    if call.request.transport is not None:
        call.request.transport.abort()
    return response or web.Response(status=502)


async def _echo_messages(request: web.Request) -> web.StreamResponse:
    """Send back every message of a WebSocket until the client closes it."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type == web.WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == web.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket
