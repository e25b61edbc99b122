"""The simulated container of a live model: it returns a stream's video, changed by a fault if there is one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import av

from jobtester.simulator.background_tasks import run_beside
from jobtester.simulator.background_thread import run_in_thread
from jobtester.simulator.live_spec import LiveContainerSpec
from jobtester.simulator.live_video.byte_pipes import BytePipe, ChunkQueue
from jobtester.simulator.live_video.container_status import ContainerStatus
from jobtester.simulator.live_video.live_log import LoggedSession
from jobtester.simulator.live_video.picture import Look, Transcoder
from jobtester.simulator.live_video.remuxing import SegmentMuxer, is_usable, open_input
from jobtester.simulator.live_video.trickle_client import (
    ChannelBrokenError,
    delete_channel,
    read_channel,
    write_channel,
    write_segment,
)

# Faults whose frames never come, and those whose frames stop at `fault_after_s`.
_WITHOUT_OUTPUT = {"live_mute", "live_empty_segments", "live_never_loads"}
_STOPPING = {"live_container_dies", "live_error", "live_orchestrator_dies", "live_swap"}
_WITHOUT_EVENTS = {"live_mute", "live_no_events"}
_MAX_MESSAGE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What the orchestrator passes to the container: the URLs of the channels, and the parameters."""

    subscribe_url: str
    publish_url: str
    control_url: str
    events_url: str
    params: dict[str, Any]
    manifest_id: str


@dataclass(slots=True)
class ContainerSession:
    """One stream in the container. `on_fault` is called when the time of its fault has come."""

    request: StartRequest
    spec: LiveContainerSpec
    fault: str
    load_s: float
    entry: LoggedSession
    on_fault: Callable[[], Awaitable[None]]
    status: ContainerStatus = field(init=False)
    has_stopped: bool = field(init=False, default=False)
    _events: int = field(init=False, default=0)
    _all_sent: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Prepare the status that the container reports."""
        self.status = ContainerStatus(
            self.fault, self.spec.event_interval_s, self.request.params, is_loaded=not self.load_s
        )

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Serve the stream until its input ends; close its channels then."""
        pipe, queue = BytePipe(), ChunkQueue()
        work = (
            run_in_thread(lambda: self._process(pipe, queue), f"container {self.request.manifest_id}"),
            self._send_video(session, queue),
            self._load(),
            self._report(session),
            self._obey(session),
            self._fail_in_time(),
        )
        try:
            await run_beside(self._take_video(session, pipe), *work)
        except ChannelBrokenError:
            pass  # the orchestrator has gone, and with it the stream
        finally:
            pipe.abort()
            queue.close()
            if not self._is_dead:
                for url in (self.request.publish_url, self.request.events_url, self.request.control_url):
                    await delete_channel(session, url)

    async def send_first_event(self, session: aiohttp.ClientSession) -> None:
        """Report the status at the start, which no gateway reads: it reads from the next event on."""
        if self.fault not in _WITHOUT_EVENTS:
            with suppress(ChannelBrokenError):  # the stream ends for the same reason
                await self._send_event(session)

    async def _take_video(self, session: aiohttp.ClientSession, pipe: BytePipe) -> None:
        async for received in read_channel(session, self.request.subscribe_url, first=0):
            pipe.feed(received.content)
        pipe.close()
        await self._all_sent.wait()

    async def _send_video(self, session: aiohttp.ClientSession, queue: ChunkQueue) -> None:
        if self.fault == "live_empty_segments":
            self._all_sent.set()
            await self._write_empty_segments(session)
        else:
            await write_channel(session, self.request.publish_url, queue)
            self._all_sent.set()

    def _process(self, pipe: BytePipe, queue: ChunkQueue) -> None:
        muxer = SegmentMuxer(queue)
        transcoder = Transcoder(muxer, 1 / self.spec.slow_fps if self.fault == "live_slow" else 0.0)
        look: Look | None = None
        try:
            with open_input(pipe, lambda _: 0.0, "mpegts") as container:
                stream = container.streams.video[0]
                for packet in container.demux(stream):
                    if not is_usable(packet):
                        continue
                    self._count_input()
                    if not self._has_output:
                        look = None
                        continue
                    if packet.is_keyframe:  # the way in which frames pass can only change here
                        look = self._choose_look()
                    if look is None:
                        continue
                    if look == "same" and self.fault != "live_slow":
                        muxer.copy(packet, stream)
                        self._count_output(1)
                    else:
                        self._count_output(transcoder.write(packet, look))
                muxer.end()
        except (av.FFmpegError, OSError, EOFError):
            pass  # the input has ended in the middle, or the output is closed
        finally:
            queue.finish()

    def _choose_look(self) -> Look:
        if self.fault == "live_black":
            return "black"
        if self.fault == "live_frozen":
            return "frozen"
        return "inverted" if self.status.updates % 2 and self.fault != "live_claims_params" else "same"

    @property
    def _has_output(self) -> bool:
        return self.status.is_loaded and self.fault not in _WITHOUT_OUTPUT and not self.has_stopped

    @property
    def _is_dead(self) -> bool:
        return self.has_stopped and self.fault in ("live_container_dies", "live_orchestrator_dies")

    def _count_input(self) -> None:
        self.status.inputs.add()
        self.entry.frames_in += 1
        if self.entry.first_frame_in_at is None:
            self.entry.first_frame_in_at = time.monotonic()

    def _count_output(self, number: int) -> None:
        if not number:
            return
        self.status.outputs.add(number)
        self.entry.frames_out += number
        if self.entry.first_frame_out_at is None:
            self.entry.first_frame_out_at = time.monotonic()

    async def _load(self) -> None:
        await asyncio.sleep(self.load_s)
        self.status.is_loaded = True

    async def _report(self, session: aiohttp.ClientSession) -> None:
        if self.fault in _WITHOUT_EVENTS:
            return
        while True:
            await asyncio.sleep(self.spec.event_interval_s)
            if self._is_dead:
                return
            await self._send_event(session)

    async def _send_event(self, session: aiohttp.ClientSession) -> None:
        number, self._events = self._events, self._events + 1
        await write_segment(session, self.request.events_url, number, json.dumps(self.status.to_event()).encode())

    async def _obey(self, session: aiohttp.ClientSession) -> None:
        message = b""
        async for received in read_channel(session, self.request.control_url, first=0):
            message = (message + received.content)[:_MAX_MESSAGE_BYTES]
            if received.content:
                continue
            with suppress(ValueError):  # a message that is no JSON changes nothing
                params = json.loads(message)
                if isinstance(params, dict) and "keep" not in params:
                    self.status.update_params(params)
            message = b""

    async def _fail_in_time(self) -> None:
        if self.fault not in _STOPPING:
            return
        await asyncio.sleep(self.spec.fault_after_s)
        self.has_stopped = True
        self.status.has_failed = self.fault == "live_error"
        await self.on_fault()

    async def _write_empty_segments(self, session: aiohttp.ClientSession) -> None:
        number = 0
        while await write_segment(session, self.request.publish_url, number, b""):
            number += 1
            await asyncio.sleep(1.0)
