"""One stream at the gateway: its input, the sessions on orchestrators that serve it one after the other, its end."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import aiohttp

from jobtester.simulator.background_tasks import run_beside
from jobtester.simulator.live_spec import LiveGatewaySpec
from jobtester.simulator.live_video.byte_pipes import ChunkQueue
from jobtester.simulator.live_video.input_reader import InputReader
from jobtester.simulator.live_video.live_log import LiveLog, LoggedLiveJob
from jobtester.simulator.live_video.live_metrics import NO_ORCHESTRATORS, LiveMetrics
from jobtester.simulator.live_video.media_server import MediaServer
from jobtester.simulator.live_video.output_sender import OutputFeed, OutputSender
from jobtester.simulator.live_video.selection import LiveSelection, StartedSession, StreamRequest
from jobtester.simulator.live_video.status_store import StatusStore
from jobtester.simulator.live_video.trickle_client import (
    ChannelBrokenError,
    delete_channel,
    read_channel,
    write_channel,
    write_segment,
)

Outcome = Literal["input over", "output closed", "broken", "no events", "no segments", "slow"]

_INPUT_READS = 4
_FRESH_INPUT_S = 5.0
_FLUSH_S = 2.5
_MOST_WAITING_SEGMENTS = 3
_WATCH_S = 0.05
_LOG_TEXTS: dict[Outcome, str] = {
    "output closed": "trickle subscribe closed",
    "broken": "trickle subscribe error reading",
    "no events": "timeout waiting for events",
    "no segments": "timeout waiting for segments",
    "slow": "orchestrator is slow",
}


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """What the streams of one gateway share."""

    spec: LiveGatewaySpec
    session: aiohttp.ClientSession
    selection: LiveSelection
    statuses: StatusStore
    metrics: LiveMetrics
    live_log: LiveLog
    rng: random.Random


@dataclass(slots=True)
class _Activity:
    """When a session last showed signs of life."""

    event_at: float
    segment_at: float
    first_segment_is_over: bool = False


class LiveStream:
    """One stream. `outputs` are the URLs that its output is sent to."""

    def __init__(
        self,
        parts: GatewayParts,
        request: StreamRequest,
        job: LoggedLiveJob,
        media_server: MediaServer,
        input_url: str,
        outputs: Sequence[str],
    ) -> None:
        self.request, self.job = request, job
        self._parts, self._media_server, self._outputs = parts, media_server, outputs
        self._reader = InputReader(input_url, parts.spec, job.count_frame)
        self._sender = OutputSender(parts.spec, job)
        self._queue = ChunkQueue()
        self._input_is_over = asyncio.Event()
        self._swaps: list[float] = []
        self._current: StartedSession | None = None
        self._control_number = 0

    async def select(self) -> StartedSession | None:
        """Find an orchestrator; without one show the error and have the source disconnected."""
        started = await self._parts.selection.start(self._parts.session, self.request, self.job)
        if started is None:
            self._parts.metrics.count_unserved(self.request.model)
            self._show_error(NO_ORCHESTRATORS)
            await self._kick()
        return started

    async def run(self, first: StartedSession) -> None:
        """Serve the stream until its input is over or no orchestrator is left."""
        self._parts.metrics.change_running(self.request.model, 1)
        try:
            await run_beside(self._serve_all(first), self._read_input())
        finally:
            self._queue.close()
            self._parts.metrics.change_running(self.request.model, -1)
            self.job.ended_at = time.monotonic()

    async def update(self, params: bytes) -> None:
        """Pass changed parameters on to the container."""
        if self._current is None:
            return
        number, self._control_number = self._control_number, self._control_number + 1
        try:
            await write_segment(self._parts.session, self._current.control_url, number, params)
        except ChannelBrokenError as error:
            self.job.log_errors.append(str(error))

    async def _serve_all(self, first: StartedSession) -> None:
        started: StartedSession | None = first
        while started is not None:
            outcome = await self._serve(started)
            if outcome == "input over":
                self._show_error("mediamtx ingest disconnected")
                if self._parts.rng.random() < 0.5:  # sometimes it does, though the input has gone already
                    await self._kick()
                return
            self.job.log_errors.append(_LOG_TEXTS[outcome])
            if outcome == "slow":
                self._parts.selection.suspend_slow(started.node, self.request.model)
            if outcome == "broken":
                await asyncio.sleep(self._parts.spec.broken_s)
            started = await self._swap()

    async def _swap(self) -> StartedSession | None:
        spec, now = self._parts.spec, time.monotonic()
        self._swaps = [moment for moment in self._swaps if now - moment < spec.swap_window_s]
        if len(self._swaps) >= spec.max_swaps:
            self._show_error("Too many swaps")
            await self._kick()
            return None
        self._swaps.append(now)
        if not await self._media_server.has_source(self._parts.session):
            self._show_error("mediamtx ingest disconnected")
            return None
        self.job.swaps += 1
        return await self.select()

    async def _serve(self, started: StartedSession) -> Outcome:
        """Serve the stream from one session, and return why that ended."""
        self._current, self._control_number = started, 0
        feed, activity = OutputFeed(), _Activity(time.monotonic(), time.monotonic())
        entry = self._parts.live_log.find_session(started.manifest_id)
        if entry is not None:
            self.job.sessions.append(entry)
        outcome: Outcome = "broken"
        try:
            outcome = await run_beside(
                self._watch(started, feed, activity),
                self._read_events(started, activity),
                *(self._sender.send(self._parts.session, url, feed) for url in self._outputs),
            )
        finally:
            self._current = None
            if entry is not None:
                entry.ended_at, entry.outcome = time.monotonic(), outcome
            await self._close(started)
        return outcome

    async def _watch(self, started: StartedSession, feed: OutputFeed, activity: _Activity) -> Outcome:
        """Publish the input, read the output, and end when one of them or the container's patience is over."""
        session = self._parts.session
        publishing = asyncio.create_task(write_channel(session, started.publish_url, self._queue))
        reading = asyncio.create_task(self._read_output(started, feed, activity))
        try:
            while True:
                await asyncio.wait({reading}, timeout=_WATCH_S)
                if self._input_is_over.is_set():
                    await self._flush(started, publishing, reading)
                    return "input over"
                if reading.done():
                    return self._find_end(reading)
                if (outcome := self._find_timeout(activity)) is not None:
                    return outcome
        finally:
            for task in (publishing, reading):
                task.cancel()
            await asyncio.gather(publishing, reading, return_exceptions=True)
            await self._end_outputs(feed)

    def _find_end(self, reading: asyncio.Task[None]) -> Outcome:
        error = reading.exception()
        if error is None:
            return "output closed"
        self._show_error(str(error))
        return "broken"

    async def _flush(
        self, started: StartedSession, publishing: asyncio.Task[None], reading: asyncio.Task[None]
    ) -> None:
        """Send what is left of the input, end the session, and read what is left of its output."""
        await asyncio.wait({publishing}, timeout=_FLUSH_S)
        await delete_channel(self._parts.session, started.publish_url)
        await asyncio.wait({reading}, timeout=_FLUSH_S)

    async def _end_outputs(self, feed: OutputFeed) -> None:
        """Wait until the connections of the output have ended, after what was written."""
        feed.close()
        await self._sender.wait_until_ended(_FLUSH_S)

    def _find_timeout(self, activity: _Activity) -> Outcome | None:
        spec, now = self._parts.spec, time.monotonic()
        if now - activity.event_at > spec.events_timeout_s:
            return "no events"
        is_fresh = now - self._reader.last_frame_at < _FRESH_INPUT_S
        if is_fresh and now - activity.segment_at > spec.segments_timeout_s:
            return "no segments"
        return "slow" if self._queue.waiting_segments > _MOST_WAITING_SEGMENTS else None

    async def _read_input(self) -> None:
        """Read the input as often as it exists; it is over when several answers in a row deny that."""
        failures = 0
        while failures < _INPUT_READS:
            frames = 0
            if await self._media_server.has_source(self._parts.session):
                frames = await self._reader.read_once(self._parts.session, self._queue)
            failures = 0 if frames else failures + 1
            await asyncio.sleep(self._parts.spec.input_retry_s)
        self._queue.finish()
        self._input_is_over.set()

    async def _read_output(self, started: StartedSession, feed: OutputFeed, activity: _Activity) -> None:
        size = 0
        async for received in read_channel(self._parts.session, started.subscribe_url):
            feed.write(received.content)
            size += len(received.content)
            activity.segment_at = time.monotonic()
            if not received.content and size and not activity.first_segment_is_over:
                activity.first_segment_is_over = True
                delay_s = activity.segment_at - started.called_at
                self._parts.metrics.add_first_segment_delay(started.node, delay_s)
                entry = self._parts.live_log.find_session(started.manifest_id)
                if entry is not None:
                    entry.first_segment_delay_s = delay_s

    async def _read_events(self, started: StartedSession, activity: _Activity) -> None:
        with suppress(ChannelBrokenError):  # the channels of the video break with it
            await self._show_events(started, activity)

    async def _show_events(self, started: StartedSession, activity: _Activity) -> None:
        message = b""
        async for received in read_channel(self._parts.session, started.events_url):
            message += received.content
            if received.content:
                continue
            event, message = json.loads(message or b"{}"), b""
            activity.event_at = time.monotonic()
            spec = started.node.spec
            event |= {
                "stream_id": self.request.stream_id,
                "request_id": self.request.request_id,
                "pipeline_id": "",
                "orchestrator_info": {"address": spec.local_address or spec.address, "url": spec.service_uri},
            }
            self._parts.statuses.set_event(self.request.stream_id, event)

    async def _close(self, started: StartedSession) -> None:
        urls = (started.publish_url, started.subscribe_url, started.control_url, started.events_url)
        for url in urls:
            await delete_channel(self._parts.session, url)

    async def _kick(self) -> None:
        self.job.kicked = True
        await self._media_server.kick_source(self._parts.session)

    def _show_error(self, message: str) -> None:
        self.job.error = self.job.error or message
        self._parts.statuses.set_error(self.request.stream_id, message)
