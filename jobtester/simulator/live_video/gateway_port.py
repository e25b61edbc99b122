"""The routes of live video on a gateway's job port."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web

from jobtester.simulator.background_tasks import BackgroundTasks
from jobtester.simulator.http_errors import create_error_response
from jobtester.simulator.live_video.live_log import LiveLog
from jobtester.simulator.live_video.live_metrics import LiveMetrics
from jobtester.simulator.live_video.media_server import KINDS, MediaServer
from jobtester.simulator.live_video.selection import LiveSelection, StartedSession, StreamRequest
from jobtester.simulator.live_video.status_store import StatusStore
from jobtester.simulator.live_video.stream import GatewayParts, LiveStream
from jobtester.simulator.orchestrator import Orchestrator
from jobtester.simulator.scenario import GatewaySpec

_BASE = "/live/video-to-video"
_DEFAULT_MODEL = "noop"
_NOT_FOUND = "Stream not found"
_MAX_PARAMS_BYTES = 10 * 2**20


class _StartRefusedError(Exception):
    """The gateway does not take a stream; the text is its answer."""


class LiveGatewayPort:
    """Takes streams, updates of their parameters, and questions about their status. Nothing stops a stream."""

    def __init__(
        self,
        spec: GatewaySpec,
        rng: random.Random,
        collect_nodes: Callable[[], Awaitable[Sequence[Orchestrator]]],
        metrics: LiveMetrics,
        live_log: LiveLog,
        tasks: BackgroundTasks,
    ) -> None:
        self._spec, self._random, self._tasks = spec, rng, tasks
        self._session: aiohttp.ClientSession | None = None
        self._selection = LiveSelection(spec, rng, collect_nodes)
        self._statuses, self._metrics, self._live_log = StatusStore(), metrics, live_log
        self._streams: dict[str, LiveStream] = {}
        metrics.count_available = self._selection.count_available

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the routes; a stream may have a prefix before its name."""
        for path in (f"{_BASE}/{{stream:[^/]*}}", f"{_BASE}/{{prefix}}/{{stream:[^/]*}}"):
            router.add_post(f"{path}/start", self._handle_start)
            router.add_post(f"{path}/update", self._handle_update)
        router.add_get(f"{_BASE}/{{stream_id}}/status", self._handle_status)
        router.add_put(f"{_BASE}/smoketest", _handle_smoketest)

    async def close(self) -> None:
        """Close the connections to orchestrators and clients; the streams have been canceled before."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _handle_start(self, request: web.Request) -> web.Response:
        received_at = time.monotonic()
        form = await request.post()
        try:
            stream = self._create_stream(request, {name: str(value) for name, value in form.items()}, received_at)
        except _StartRefusedError as error:
            return create_error_response(400, str(error))
        if stream is None:
            return web.Response()
        started: StartedSession | None = None
        try:
            started = await stream.select()
        finally:
            if started is None:
                self._forget_later(stream)
        stream.job.answered_at = time.monotonic()
        if started is not None:
            self._streams[stream.request.stream] = stream
            self._tasks.start(self._run(stream, started), f"stream {stream.request.stream}")
        else:
            stream.job.ended_at = time.monotonic()
        return web.Response()

    def _create_stream(self, request: web.Request, form: dict[str, str], received_at: float) -> LiveStream | None:
        """Return the stream that a form describes, None if it is the output of one."""
        name = request.match_info["stream"]
        for value, message in ((name, "stream name"), (form.get("source_id"), "source_id")):
            if not value:
                raise _StartRefusedError(f"Missing {message}")
        if not form.get("source_type"):
            raise _StartRefusedError("Missing source_type")
        if form["source_type"] not in KINDS:
            raise _StartRefusedError("unknown media source")
        query = {key: values[0] for key, values in parse_qs(form.get("query", "")).items()}
        try:
            params = json.loads(query.get("params") or "{}")
        except ValueError:
            params = None
        if not isinstance(params, dict):
            raise _StartRefusedError("Invalid model params")
        if name.endswith("-out"):
            return None
        return self._open_stream(
            request.remote or "",
            StreamRequest(
                stream=name,
                stream_id=query.get("streamId") or f"{self._random.getrandbits(64):016x}",
                request_id=f"{self._random.getrandbits(32):08x}",
                pin=query.get("orchestrator", ""),
                model=query.get("pipeline") or _DEFAULT_MODEL,
                params=params,
            ),
            form,
            query.get("rtmpOutput", ""),
            received_at,
        )

    def _open_stream(
        self, caller: str, request: StreamRequest, form: dict[str, str], output_url: str, received_at: float
    ) -> LiveStream:
        self._metrics.count_attempt(request.model)
        self._statuses.begin(
            request.stream_id,
            f"https://{self._spec.name}/live/video-to-video/{request.stream}-{request.request_id}-out/whep",
        )
        job = self._live_log.add_job(
            gateway=self._spec.name,
            stream=request.stream,
            stream_id=request.stream_id,
            request_id=request.request_id,
            pin=request.pin,
            model=request.model,
            received_at=received_at,
        )
        input_url = form.get("rtmp_url") or f"rtmp://{caller}/{request.stream}"
        outputs = [output_url] if output_url else []
        outputs += [f"{input_url}-out", f"{input_url}-{request.request_id}-out"]
        live = self._spec.live
        media_server = MediaServer(
            caller, live.callback_port, live.callback_password, form["source_type"], form["source_id"]
        )
        return LiveStream(self._open_parts(), request, job, media_server, input_url, outputs)

    def _open_parts(self) -> GatewayParts:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return GatewayParts(
            self._spec.live,
            self._session,
            self._selection,
            self._statuses,
            self._metrics,
            self._live_log,
            self._random,
        )

    async def _run(self, stream: LiveStream, started: StartedSession) -> None:
        try:
            await stream.run(started)
        finally:
            if self._streams.get(stream.request.stream) is stream:
                del self._streams[stream.request.stream]
            self._forget_later(stream)

    def _forget_later(self, stream: LiveStream) -> None:
        life_s = self._spec.live.status_life_s
        asyncio.get_running_loop().call_later(life_s, self._statuses.remove, stream.request.stream_id)

    async def _handle_update(self, request: web.Request) -> web.Response:
        stream = self._streams.get(request.match_info["stream"])
        if stream is None:
            return create_error_response(404, _NOT_FOUND)
        await stream.update((await request.read())[:_MAX_PARAMS_BYTES])
        return web.Response()

    async def _handle_status(self, request: web.Request) -> web.Response:
        status: dict[str, Any] | None = self._statuses.describe(request.match_info["stream_id"])
        if status is None:
            return create_error_response(404, _NOT_FOUND)
        return web.json_response(status)


async def _handle_smoketest(_: web.Request) -> web.Response:
    return web.Response()
