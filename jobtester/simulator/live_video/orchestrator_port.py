"""An orchestrator's part in live video: it takes a stream for its container, and opens the stream's channels."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from aiohttp import web

from jobtester.simulator import faults
from jobtester.simulator.background_tasks import BackgroundTasks
from jobtester.simulator.http_errors import create_error_response
from jobtester.simulator.live_video.container import ContainerSession, StartRequest
from jobtester.simulator.live_video.live_log import LiveLog
from jobtester.simulator.orchestrator import AttemptFailedError, Orchestrator

PIPELINE = faults.LIVE_PIPELINE
_SUFFIXES = ("", "-out", "-control", "-events")
_MIME_TYPES = {"": "video/MP2T", "-out": "video/MP2T", "-control": "application/json", "-events": "application/json"}
_CONTAINER_ERROR = "live-video-to-video container returned 500: Internal server error."
_NO_CAPACITY = "insufficient capacity"


class Channels(Protocol):
    """The trickle server of an orchestrator, as far as the orchestrator itself uses it."""

    def create(self, name: str, content_type: str) -> object:
        """Open a channel."""

    def close(self, name: str) -> None:
        """Close a channel, if it is open."""

    def exists(self, name: str) -> bool:
        """Return True if a channel is open."""


@dataclass(frozen=True, slots=True)
class StartValues:
    """What a gateway sends with a stream that it starts."""

    model: str
    params: dict[str, Any]
    stream_id: str
    gateway_request_id: str


@dataclass(slots=True)
class _RunningStream:
    task: asyncio.Task[None]
    gateway_request_id: str


class LiveVideoPort:
    """The route by which gateways start streams on one orchestrator, and the container behind it."""

    def __init__(self, node: Orchestrator, channels: Channels, live_log: LiveLog, seed: str) -> None:
        self.node = node
        self._channels, self._live_log = channels, live_log
        self._random = random.Random(f"{seed}/live")
        self._streams: dict[str, _RunningStream] = {}
        self._swapped: set[str] = set()
        self._is_container_dead = False
        self._tasks = BackgroundTasks()
        self._session: aiohttp.ClientSession | None = None
        node.restart_callbacks.append(self._restart)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the route that gateways call."""
        router.add_post(f"/{PIPELINE}", self._handle_start)

    async def stop(self) -> None:
        """End every stream."""
        await self._tasks.cancel_all()
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _restart(self) -> None:
        self._is_container_dead = False
        self._end_streams()

    def _end_streams(self) -> None:
        for manifest_id, stream in self._streams.items():
            stream.task.cancel()
            self._close_channels(manifest_id)

    async def _handle_start(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
            model, params = str(body["model_id"]), dict(body.get("params") or {})
            names = {name: str(body.get(name, "")) for name in ("stream_id", "gateway_request_id")}
        except (ValueError, TypeError, KeyError) as error:
            return create_error_response(400, str(error))
        await self._wait_for_ended_streams()
        fault = self.node.draw_fault(PIPELINE)
        spec = self.node.find_model(PIPELINE, model)
        if spec is None or fault in ("busy", "live_start_503"):
            return create_error_response(503, _NO_CAPACITY)
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "live_start_500" or fault in faults.ATTEMPT or self._is_container_dead:
            return create_error_response(500, _CONTAINER_ERROR)
        slot = ExitStack()
        try:
            slot.enter_context(self.node.occupy_slot((PIPELINE, model), spec.capacity, fault))
        except AttemptFailedError as error:
            return create_error_response(503, error.cause)
        load_s = 0.0 if self.node.is_warm(PIPELINE, model) else spec.cold_s
        answer = await self._start_stream(slot, fault, load_s, StartValues(model, params, **names))
        return web.json_response(answer)

    async def _start_stream(self, slot: ExitStack, fault: str, load_s: float, values: StartValues) -> Mapping[str, str]:
        if fault == "live_swap" and values.gateway_request_id in self._swapped:
            fault = ""
        manifest_id = f"{self._random.getrandbits(32):08x}"
        urls = [self._open_channel(manifest_id, suffix) for suffix in _SUFFIXES]
        entry = self._live_log.add_session(
            address=self.node.spec.address,
            service_uri=self.node.spec.service_uri,
            manifest_id=manifest_id,
            fault=fault,
        )
        container = ContainerSession(
            StartRequest(
                subscribe_url=urls[0],
                publish_url=urls[1],
                control_url=urls[2],
                events_url=urls[3],
                params=values.params,
                manifest_id=manifest_id,
            ),
            self.node.spec.live,
            fault,
            load_s,
            entry,
            lambda: self._meet_fault(fault, manifest_id, values.gateway_request_id),
        )
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        try:
            await container.send_first_event(self._session)
        except asyncio.CancelledError:  # the gateway has gone before it had an answer
            slot.close()
            self._close_channels(manifest_id)
            raise
        task = self._tasks.start(self._run_stream(container, slot, manifest_id, values.model), f"stream {manifest_id}")
        self._streams[manifest_id] = _RunningStream(task, values.gateway_request_id)
        return {
            "publish_url": urls[0],
            "subscribe_url": urls[1],
            "control_url": urls[2],
            "events_url": urls[3],
            "manifest_id": manifest_id,
        }

    async def _run_stream(self, container: ContainerSession, slot: ExitStack, manifest_id: str, model: str) -> None:
        assert self._session is not None
        try:
            with slot:
                await container.run(self._session)
        finally:
            if container.status.is_loaded:
                self.node.mark_warm(PIPELINE, model)
            self._streams.pop(manifest_id, None)
            self._close_channels(manifest_id)

    async def _meet_fault(self, fault: str, manifest_id: str, gateway_request_id: str) -> None:
        if fault == "live_container_dies":
            self._is_container_dead = True
        elif fault == "live_swap":
            self._swapped.add(gateway_request_id)
            self._channels.close(f"{manifest_id}-out")
        elif fault == "live_orchestrator_dies":
            self._tasks.start(self._die(), "death of an orchestrator")

    async def _die(self) -> None:
        self.node.die()
        self._end_streams()

    async def _wait_for_ended_streams(self) -> None:
        """Wait until the slots of streams are free whose gateway has closed them already."""
        ended = [stream.task for name, stream in self._streams.items() if not self._channels.exists(name)]
        if ended:
            await asyncio.wait(ended, timeout=1.0)

    def _open_channel(self, manifest_id: str, suffix: str) -> str:
        name = manifest_id + suffix
        self._channels.create(name, _MIME_TYPES[suffix])
        return f"{self.node.spec.service_uri.rstrip('/')}/ai/trickle/{name}"

    def _close_channels(self, manifest_id: str) -> None:
        for suffix in _SUFFIXES:
            self._channels.close(manifest_id + suffix)
