"""How the gateway sends a stream's output: as FLV in one POST, to each of several URLs, again where it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp

from jobtester.simulator.background_tasks import run_beside
from jobtester.simulator.background_thread import run_in_thread
from jobtester.simulator.live_spec import LiveGatewaySpec
from jobtester.simulator.live_video.byte_pipes import BytePipe, Chunk, ChunkQueue
from jobtester.simulator.live_video.input_reader import FFMPEG_HEADERS
from jobtester.simulator.live_video.live_log import LoggedLiveJob, LoggedOutput
from jobtester.simulator.live_video.remuxing import convert_to_flv

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=5.0)


class OutputFeed:
    """The MPEG-TS that comes back from an orchestrator, for all who subscribe; each gets what comes after that."""

    def __init__(self) -> None:
        self.is_over = False
        self._pipes: set[BytePipe] = set()

    def subscribe(self) -> BytePipe:
        """Return a pipe with the bytes that are written after this call."""
        pipe = BytePipe()
        if self.is_over:
            pipe.close()
        self._pipes.add(pipe)
        return pipe

    def unsubscribe(self, pipe: BytePipe) -> None:
        """End a pipe whose reader has ended."""
        self._pipes.discard(pipe)
        pipe.abort()

    def write(self, content: bytes) -> None:
        """Pass bytes on."""
        for pipe in self._pipes:
            pipe.feed(content)

    def close(self) -> None:
        """End every pipe after what was written."""
        self.is_over = True
        for pipe in self._pipes:
            pipe.close()


class OutputSender:
    """Sends the output of one job."""

    def __init__(self, spec: LiveGatewaySpec, job: LoggedLiveJob) -> None:
        self._spec, self._job = spec, job
        self._open = 0
        self._begun_urls: set[str] = set()
        self._all_ended = asyncio.Event()
        self._all_ended.set()

    async def wait_until_ended(self, timeout_s: float) -> None:
        """Wait until no connection is open, but not longer than `timeout_s`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_ended.wait(), timeout_s)

    async def send(self, session: aiohttp.ClientSession, url: str, feed: OutputFeed) -> None:
        """Send the output to a URL until it is over; try again some seconds after each failure."""
        if urlsplit(url).scheme != "http":
            return
        while not feed.is_over:
            pipe = feed.subscribe()
            try:
                await self._send_once(session, url, pipe)
            finally:
                feed.unsubscribe(pipe)
            if not feed.is_over:
                await asyncio.sleep(self._spec.output_retry_s)

    async def _send_once(self, session: aiohttp.ClientSession, url: str, pipe: BytePipe) -> None:
        queue = ChunkQueue()
        entry = LoggedOutput(url, time.monotonic())
        probe_s = self._spec.output_probe_s + (0.0 if url in self._begun_urls else self._spec.output_start_s)
        self._begun_urls.add(url)

        def count_frame() -> None:
            entry.frames += 1

        def convert() -> None:
            convert_to_flv(pipe, queue, lambda _: probe_s, count_frame)

        self._open += 1
        self._all_ended.clear()
        try:
            await run_beside(self._post(session, queue, entry), run_in_thread(convert, "output of a gateway"))
        finally:
            queue.close()
            entry.ended_at = time.monotonic()
            self._open -= 1
            if not self._open:
                self._all_ended.set()

    async def _post(self, session: aiohttp.ClientSession, queue: ChunkQueue, entry: LoggedOutput) -> None:
        first = await queue.next_chunk()  # ffmpeg connects when it knows what it will send
        if first is None:
            return
        entry.opened_at = time.monotonic()
        self._job.outputs.append(entry)
        body = _body(queue, first, lambda: _set_first_frame_time(entry))
        headers = {**FFMPEG_HEADERS, "Connection": "close"}
        try:
            async with session.post(
                entry.url, data=body, headers=headers, skip_auto_headers=("Content-Type",), timeout=_TIMEOUT
            ) as response:
                entry.status = response.status
        except (aiohttp.ClientError, TimeoutError):
            pass  # the client does not take it: it is tried again later


async def _body(queue: ChunkQueue, first: Chunk, on_first_frame: Callable[[], None]) -> AsyncIterator[bytes]:
    chunk: Chunk | None = first
    while chunk is not None:
        if chunk.content:
            if chunk.has_first_frame:
                on_first_frame()
            yield chunk.content
        chunk = await queue.next_chunk()


def _set_first_frame_time(entry: LoggedOutput) -> None:
    entry.first_frame_at = time.monotonic()
