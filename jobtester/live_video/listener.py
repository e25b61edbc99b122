"""Serve what a gateway asks of the tester during live video: whether an input lives, the input, and the output.

A gateway expects a MediaMTX server on the machine that starts a stream, always on the same port (docs/live-video.md).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from aiohttp import StreamReader, web

from jobtester.crash_boundary import CrashBoundary
from jobtester.errors import PortInUseError

_USER = "admin"  # fixed in the gateway
_MAX_OUTPUTS = 50  # connections of one stream; a gateway opens another every 5 s where one breaks
_MAX_INPUTS = 20  # of one stream; a gateway reads an input that broke a few times more
_READ_BYTES = 65_536

Chunks = AsyncIterator[tuple[float, bytes]]


@dataclass(slots=True)
class StreamPorts:
    """One stream's input and output as a gateway meets them; times are monotonic seconds, None until it happens.

    `open_input` begins the input, a Matroska file that ends with the stream; a gateway may ask for it more than once.
    `take_output` reads one connection's output: each chunk with its time of arrival. A second connection comes where
    one breaks. `longest_write_s` is how long the gateway let a piece of the input wait before it took it.
    """

    source_id: str
    open_input: Callable[[], AsyncGenerator[bytes]]
    take_output: Callable[[Chunks], Awaitable[None]]
    is_alive: bool = True
    asked_at: float | None = None
    input_taken_at: float | None = None
    kicked_at: float | None = None
    output_closed_at: float | None = None
    outputs: int = 0
    inputs: int = 0
    longest_write_s: float = 0.0
    _connections: set[asyncio.Transport] = field(default_factory=set)
    _readers: set[asyncio.Transport] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def has_open_output(self) -> bool:
        """Return True while the gateway sends output."""
        return bool(self._connections)

    async def wait_for_change(self) -> None:
        """Wait until the gateway kicks the input, or opens or closes an output."""
        self._changed.clear()
        await self._changed.wait()

    def on_kicked(self) -> None:
        """End the input, as the gateway wants."""
        if self.is_alive:
            self.is_alive, self.kicked_at = False, time.monotonic()
            self._changed.set()

    @contextmanager
    def reading_input(self, connection: asyncio.Transport) -> Iterator[None]:
        """Know a connection that takes the input; the newest replaces one that may be half dead."""
        _abort(self._readers)
        self.inputs += 1
        self.input_taken_at = self.input_taken_at or time.monotonic()
        self._readers.add(connection)
        try:
            yield
        finally:
            self._readers.discard(connection)

    @contextmanager
    def writing_input(self) -> Iterator[None]:
        """Measure how long one piece of the input waits to be taken."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.longest_write_s = max(self.longest_write_s, time.monotonic() - began)

    def on_output_opened(self, connection: asyncio.Transport) -> None:
        """Count one more connection that brings output, in the place of one that may be half dead."""
        _abort(self._connections)
        self.outputs += 1
        self._connections.add(connection)
        self._changed.set()

    def on_output_closed(self, connection: asyncio.Transport) -> None:
        """Count a connection that brings no more output."""
        self._connections.discard(connection)
        self.output_closed_at = time.monotonic()
        self._changed.set()

    def cut(self) -> None:
        """Break the connections that still bring output or take input."""
        _abort(self._connections)
        _abort(self._readers)


@dataclass(slots=True)
class CallbackListener:
    """One listener for all live video jobs; streams are told apart by their source id.

    `port` is 9997 for a real gateway, which asks at no other. `password` is what the gateway's -mediaMTXApiPassword has
    to be; without one every caller is answered.
    """

    host: str
    port: int
    password: str = ""
    crashes: CrashBoundary = field(default_factory=CrashBoundary)
    _streams: dict[str, StreamPorts] = field(default_factory=dict)
    _runner: web.AppRunner | None = None
    _users: int = 0
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def bound_port(self) -> int:
        """The port that is listened on, which is another where 0 is configured."""
        assert self._runner is not None, "listening() comes first"
        return int(self._runner.addresses[0][1])

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen as long as anybody is in the block. Raises PortInUseError."""
        self._users += 1
        try:
            async with self._changing:
                if self._runner is None:
                    self._runner = await self._open()
            yield
        finally:
            self._users -= 1
            async with self._changing:
                if self._users == 0 and self._runner is not None:
                    # Forgotten first: a stream that begins while it closes, or after it failed to, opens a new one.
                    runner, self._runner = self._runner, None
                    await runner.cleanup()

    async def _open(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/v3/rtmpconns/get/{source_id}", self._answer_get)
        app.router.add_post("/v3/rtmpconns/kick/{source_id}", self._answer_kick)
        app.router.add_get("/in/{name}", self._serve_input)
        app.router.add_post("/out/{source_id}", self._take_output)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError as error:
            await runner.cleanup()
            text = f"live_video: cannot listen on {self.host}:{self.port}: {error.strerror}"
            raise PortInUseError(text) from error
        return runner

    def add(self, stream: StreamPorts) -> None:
        """Serve a stream from now on."""
        self._streams[stream.source_id] = stream

    def remove(self, stream: StreamPorts) -> None:
        """Serve a stream no longer."""
        stream.is_alive = False
        stream.cut()
        self._streams.pop(stream.source_id, None)

    async def _answer_get(self, request: web.Request) -> web.Response:
        """Answer whether a source still sends."""
        if not self._is_allowed(request):
            return web.Response(status=401)
        stream = self._streams.get(request.match_info["source_id"])
        if stream is None or not stream.is_alive:
            return web.json_response({"error": "connection not found"}, status=404)
        stream.asked_at = stream.asked_at or time.monotonic()
        return web.json_response({"id": stream.source_id, "state": "publish"})

    async def _answer_kick(self, request: web.Request) -> web.Response:
        """End an input because the gateway wants it to end."""
        if not self._is_allowed(request):
            return web.Response(status=401)
        stream = self._streams.get(request.match_info["source_id"])
        if stream is None:
            return web.json_response({"error": "connection not found"}, status=404)
        stream.asked_at = stream.asked_at or time.monotonic()
        stream.on_kicked()
        return web.Response()

    async def _serve_input(self, request: web.Request) -> web.StreamResponse:
        """Serve a stream's input for as long as it lives."""
        name = request.match_info["name"]
        stream = self._streams.get(name.removesuffix(".mkv"))
        connection = request.transport
        if stream is None or not stream.is_alive or stream.inputs >= _MAX_INPUTS or connection is None:
            return web.Response(status=404)
        response = web.StreamResponse(headers={"Content-Type": "video/x-matroska"})
        response.enable_chunked_encoding()
        # A gateway that leaves is no fault of the tester's; what it did not take shows in the output.
        with (
            contextlib.suppress(ConnectionError),
            self.crashes.unit("video", expected=(ConnectionError,)),
            stream.reading_input(connection),
        ):
            await response.prepare(request)
            async with contextlib.aclosing(stream.open_input()) as chunks:
                async for chunk in chunks:
                    with stream.writing_input():
                        await response.write(chunk)
        return response

    async def _take_output(self, request: web.Request) -> web.Response:
        """Take one connection's output until it ends."""
        stream = self._streams.get(request.match_info["source_id"])
        connection = request.transport
        if stream is None or stream.outputs >= _MAX_OUTPUTS or connection is None:
            return web.Response(status=404)
        stream.on_output_opened(connection)
        try:
            with self.crashes.unit("video"):
                await stream.take_output(_read_chunks(request.content))
        finally:
            stream.on_output_closed(connection)
        return web.Response()

    def _is_allowed(self, request: web.Request) -> bool:
        if not self.password:
            return True
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        try:
            credentials = base64.b64decode(value, validate=True) if scheme.lower() == "basic" else b""
        except binascii.Error:
            return False
        return hmac.compare_digest(credentials, f"{_USER}:{self.password}".encode())


def _abort(connections: Iterable[asyncio.Transport]) -> None:
    for connection in tuple(connections):
        connection.abort()


async def _read_chunks(content: StreamReader) -> Chunks:
    """Yield what comes, with its time of arrival, until the sender ends it or is gone."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, web.HTTPException):
        while chunk := await content.read(_READ_BYTES):
            yield time.monotonic(), chunk
