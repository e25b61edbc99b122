"""A raw client of live video: it serves its input as Matroska, FLV or MPEG-TS, and decodes the FLV that comes back."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, cast
from urllib.parse import urlencode

import aiohttp
import av
from aiohttp import web

from jobtester.simulator.live_video.byte_pipes import BytePipe

SIZE = 128
_OPTIONS = {
    "matroska": {"live": "1", "flush_packets": "1", "cluster_time_limit": "0"},
    "flv": {"flush_packets": "1", "flvflags": "no_duration_filesize"},
    "mpegts": {"flush_packets": "1"},
}


@dataclass(frozen=True)
class Frame:
    """A decoded frame: when, its time in the video, and how bright it is."""

    at: float
    pts_s: float
    luma: int


@dataclass
class Post:
    """One connection that brought output."""

    path: str
    begun_at: float
    first_byte_at: float = 0.0
    ended_at: float = 0.0
    frames: list[Frame] = field(default_factory=list)


@dataclass
class Question:
    """A question of the gateway to the media server."""

    kind: str
    source_id: str
    authorization: str
    at: float


class _Chunks:
    """A file that a muxer writes, read by the event loop."""

    def __init__(self) -> None:
        self._loop, self.queue = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()

    def write(self, content: bytes) -> int:
        self._loop.call_soon_threadsafe(self.queue.put_nowait, bytes(content))
        return len(content)

    def close_queue(self) -> None:
        self._loop.call_soon_threadsafe(self.queue.put_nowait, None)


class LiveClient:
    """One job at a time, with a media server's API, the input and the place for the output on one port."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.port = 0
        self.file_format, self.fps, self.seconds = "matroska", 24, 0.0
        self.claims_input = False
        self.questions: list[Question] = []
        self.posts: list[Post] = []
        self.rejected: list[str] = []
        self.inputs_read = 0
        self.frames_sent = 0
        self.started_at = 0.0
        self.input_ended = threading.Event()

    @property
    def frames(self) -> list[Frame]:
        """All frames that came back."""
        return [frame for post in self.posts for frame in post.frames]

    def kicks(self) -> list[Question]:
        """The questions to disconnect the source."""
        return [question for question in self.questions if question.kind == "kick"]

    def gets(self) -> list[Question]:
        """The questions whether the source exists."""
        return [question for question in self.questions if question.kind == "get"]

    def application(self) -> web.Application:
        """Return what listens."""
        app = web.Application()
        app.router.add_get("/v3/{connections}/get/{source}", self._handle_get)
        app.router.add_post("/v3/{connections}/kick/{source}", self._handle_kick)
        app.router.add_get("/in/{name}", self._handle_input)
        app.router.add_post("/out/{name}", self._handle_output)
        app.router.add_post("/in/{name}", self._reject_output)
        return app

    async def start(self, gateway_url: str, stream: str = "st", **query: str) -> tuple[int, str]:
        """Start a job with these keys of the query; return status and text of the response."""
        base = f"http://127.0.0.1:{self.port}"
        query = {"streamId": f"id-{stream}", "pipeline": "m", "rtmpOutput": f"{base}/out/{stream}", **query}
        form = {
            "source_id": "source-1",
            "source_type": "rtmpconn",
            "query": urlencode(query),
            "rtmp_url": f"{base}/in/{stream}.mkv",
        }
        return await self.post_start(gateway_url, stream, form)

    async def post_start(self, gateway_url: str, stream: str, form: dict[str, str]) -> tuple[int, str]:
        """Send a form to /start."""
        self.started_at = time.monotonic()
        url = f"{gateway_url}/live/video-to-video/{stream}/start"
        async with self.session.post(url, data=form) as response:
            return response.status, await response.text()

    async def update(self, gateway_url: str, params: dict[str, Any], stream: str = "st") -> tuple[int, str]:
        """Change the parameters of a job."""
        url = f"{gateway_url}/live/video-to-video/{stream}/update"
        async with self.session.post(url, data=json.dumps(params)) as response:
            return response.status, await response.text()

    async def status(self, gateway_url: str, stream: str = "st") -> dict[str, Any] | None:
        """Return the status of a job, None if nothing is known of it."""
        async with self.session.get(f"{gateway_url}/live/video-to-video/id-{stream}/status") as response:
            if response.status == 404:
                assert await response.text() == "Stream not found\n"
                return None
            assert response.status == 200
            status: dict[str, Any] = await response.json()
            return status

    async def _handle_get(self, request: web.Request) -> web.Response:
        self._add_question("get", request)
        return web.json_response({}, status=404 if self.input_ended.is_set() and not self.claims_input else 200)

    async def _handle_kick(self, request: web.Request) -> web.Response:
        self._add_question("kick", request)
        self.input_ended.set()
        return web.Response()

    def _add_question(self, kind: str, request: web.Request) -> None:
        assert request.match_info["connections"] == "rtmpconns"
        authorization = request.headers.get("Authorization", "")
        self.questions.append(Question(kind, request.match_info["source"], authorization, time.monotonic()))

    async def _handle_input(self, request: web.Request) -> web.StreamResponse:
        self.inputs_read += 1
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        chunks, stop = _Chunks(), threading.Event()
        thread = threading.Thread(target=self._produce, args=(chunks, stop), daemon=True)
        thread.start()
        try:
            while (content := await chunks.queue.get()) is not None:
                await response.write(content)
            await response.write_eof()
        finally:
            stop.set()
        return response

    async def _reject_output(self, request: web.Request) -> web.Response:
        self.rejected.append(request.path)
        return web.Response(status=404, headers={"Connection": "close"})

    async def _handle_output(self, request: web.Request) -> web.Response:
        assert request.headers.get("Transfer-Encoding") == "chunked"
        post = Post(request.path, time.monotonic())
        self.posts.append(post)
        pipe = BytePipe()
        decoding = asyncio.create_task(asyncio.to_thread(_decode, pipe, post))
        try:
            async for content in request.content.iter_any():
                post.first_byte_at = post.first_byte_at or time.monotonic()
                pipe.feed(content)
        finally:
            pipe.close()
            await decoding
            post.ended_at = time.monotonic()
        return web.Response()

    def _produce(self, chunks: _Chunks, stop: threading.Event) -> None:
        try:
            with av.open(cast("Any", chunks), "w", format=self.file_format, options=_OPTIONS[self.file_format]) as out:
                stream = out.add_stream("libx264", rate=self.fps)
                stream.width = stream.height = SIZE
                stream.pix_fmt = "yuv420p"
                stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(self.fps)}
                begun, number = time.monotonic(), 0
                while not self.input_ended.is_set() and not stop.is_set():
                    if self.seconds and number >= self.seconds * self.fps:
                        self.input_ended.set()
                        break
                    if self.input_ended.wait(max(0.0, begun + number / self.fps - time.monotonic())):
                        break
                    frame = av.VideoFrame(SIZE, SIZE, "yuv420p")
                    for plane, value in zip(frame.planes, (luma_of(number), 128, 128), strict=True):
                        plane.update(bytes([value]) * plane.buffer_size)
                    frame.pts, frame.time_base = number, Fraction(1, self.fps)
                    out.mux(stream.encode(frame))
                    number += 1
                    self.frames_sent += 1
                out.mux(stream.encode(None))
        finally:
            chunks.close_queue()


def luma_of(number: int) -> int:
    """Return how bright the frame of a number is."""
    return 40 + 2 * (number % 32)


def _decode(pipe: BytePipe, post: Post) -> None:
    try:
        with av.open(cast("Any", pipe), format="flv", options={"analyzeduration": "1"}) as flv:
            for frame in flv.decode(video=0):
                plane = frame.planes[0]
                luma = bytes(plane)[plane.line_size * (SIZE // 2) + SIZE // 2]
                post.frames.append(Frame(time.monotonic(), float(frame.time or 0.0), luma))
    except (av.FFmpegError, EOFError):
        pass  # the connection ended before there was a frame


@asynccontextmanager
async def listening_client(port: int) -> AsyncIterator[LiveClient]:
    """Listen on a port while the body runs."""
    async with aiohttp.ClientSession() as session:
        client = LiveClient(session)
        client.port = port
        runner = web.AppRunner(client.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield client
        finally:
            client.input_ended.set()
            await runner.cleanup()
