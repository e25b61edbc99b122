"""How the gateway takes a stream's input: it reads the client's URL again and again while the input exists."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp

from jobtester.simulator.background_tasks import run_beside
from jobtester.simulator.background_thread import run_in_thread
from jobtester.simulator.live_spec import LiveGatewaySpec
from jobtester.simulator.live_video.byte_pipes import BytePipe, ChunkQueue
from jobtester.simulator.live_video.remuxing import segment_input

# As ffmpeg asks for a file over HTTP.
FFMPEG_HEADERS = {"User-Agent": "Lavf/61.7.100", "Accept": "*/*", "Icy-MetaData": "1"}
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=30.0)


class InputReader:
    """Reads one URL into segments. `probe_s` is how long the format that was found is looked at."""

    def __init__(self, url: str, spec: LiveGatewaySpec, on_frame: Callable[[], None]) -> None:
        self.last_frame_at = time.monotonic()
        self._url, self._spec, self._on_frame = url, spec, on_frame

    async def read_once(self, session: aiohttp.ClientSession, queue: ChunkQueue) -> int:
        """Read the URL from its beginning to its end; return how many frames came."""
        if urlsplit(self._url).scheme != "http":
            return 0
        pipe = BytePipe()
        try:
            return await run_beside(
                run_in_thread(lambda: segment_input(pipe, queue, self._probe_s, self._count), "input of a gateway"),
                self._fetch(session, pipe),
            )
        finally:
            pipe.abort()

    async def _fetch(self, session: aiohttp.ClientSession, pipe: BytePipe) -> None:
        headers = {**FFMPEG_HEADERS, "Range": "bytes=0-", "Connection": "close"}
        try:
            async with session.get(self._url, headers=headers, timeout=_TIMEOUT) as response:
                if response.status in (200, 206):
                    async for content in response.content.iter_any():
                        pipe.feed(content)
        except (aiohttp.ClientError, TimeoutError):
            pass  # the input has ended
        finally:
            pipe.close()

    def _probe_s(self, file_format: str) -> float:
        return self._spec.matroska_probe_s if "matroska" in file_format else self._spec.other_probe_s

    def _count(self) -> None:
        self.last_frame_at = time.monotonic()
        self._on_frame()
