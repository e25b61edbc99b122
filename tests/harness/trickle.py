"""A trickle server on a real socket with TLS, as an orchestrator has it, and a plain client of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from jobtester.simulator.service_listener import create_tls_context
from jobtester.simulator.trickle.channel import Channel
from jobtester.simulator.trickle.server import TrickleServer, TrickleTimes


@dataclass(frozen=True, slots=True)
class ServedChannels:
    """A running server. `url` is its base, `session` a client that verifies no certificate."""

    server: TrickleServer
    url: str
    session: aiohttp.ClientSession

    def create(self, name: str = "ch") -> Channel:
        """Open a channel for MPEG-TS."""
        return self.server.create(name, "video/MP2T")

    async def send(self, method: str, path: str, **options: Any) -> tuple[int, bytes, Any]:
        """Return status, body and headers of a response."""
        async with self.session.request(method, f"{self.url}/{path}", ssl=False, **options) as response:
            return response.status, await response.read(), response.headers


@asynccontextmanager
async def serve_channels(times: TrickleTimes | None = None) -> AsyncIterator[ServedChannels]:
    """Run a trickle server on a free port of 127.0.0.1."""
    server = TrickleServer(times)
    app = web.Application()
    server.add_routes(app.router)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=create_tls_context())
    await site.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield ServedChannels(server, f"https://127.0.0.1:{runner.addresses[0][1]}/ai/trickle", session)
    finally:
        server.close_all()
        await runner.cleanup()


class OpenPost:
    """A POST on a connection of its own whose body is written piece by piece, and whose response is read as it is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def write(self, data: bytes) -> None:
        """Send one chunk of the body; an empty one ends it."""
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self._writer.drain()

    async def read_head(self) -> list[str]:
        """Return the lines of the next response's head."""
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 5)
        return head.decode().split("\r\n")[:-2]


@asynccontextmanager
async def open_post(served: ServedChannels, path: str, *headers: str) -> AsyncIterator[OpenPost]:
    """Open a POST, and hang up at the end."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    port = int(served.url.split(":")[2].split("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    lines = (f"POST /ai/trickle/{path} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", *headers, "", "")
    writer.write("\r\n".join(lines).encode())
    try:
        yield OpenPost(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
