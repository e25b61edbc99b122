"""A job leaves once, however its connection breaks: HTTP clients may repeat a GET by themselves, and it costs money."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from jobtester.domain.exchanges import Ending, Exchange, OutgoingRequest
from jobtester.live_runner.client import LiveRunnerClient
from tests.harness.live_runners import LOOPBACK
from tests.harness.waiting import TIMEOUT_S


@dataclass(slots=True)
class BreakingServer:
    """Reads each request to its end, writes `answer`, and breaks the connection, by a reset if `resets`."""

    answer: bytes
    resets: bool
    received: list[bytes] = field(default_factory=list)
    uri: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[BreakingServer]:
        """Listen without TLS."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content = b""
        while (b"\r\n\r\n" not in content or content.endswith(b"length: 2\r\n\r\n")) and (
            chunk := await reader.read(4096)
        ):
            content += chunk
        self.received.append(content)
        writer.write(self.answer)
        await writer.drain()
        if self.resets:
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()


async def send(server: BreakingServer, body: bytes | None) -> Exchange:
    """Send one job to a server's app."""
    client = LiveRunnerClient(LOOPBACK)
    await client.open()
    try:
        return await client.send(
            OutgoingRequest(f"{server.uri}/apps/a/app/", body, job_id="job", timeout_s=TIMEOUT_S, max_bytes=1_000_000)
        )
    finally:
        await client.close()


@pytest.mark.parametrize("body", [None, b"{}"], ids=["GET", "POST"])
@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"],
    ids=["nothing", "half a line", "half a header", "half a body"],
)
async def test_a_broken_connection_repeats_nothing(body: bytes | None, resets: bool, answer: bytes) -> None:
    """The server reads exactly one request, and the exchange says that it broke."""
    async with BreakingServer(answer, resets).running() as server:
        exchange = await send(server, body)
        requests = [content for content in server.received if content]
    assert len(requests) == 1, requests
    assert requests[0].startswith(b"GET " if body is None else b"POST ")
    assert exchange.ending in (Ending.NO_REPLY, Ending.CUT_SHORT)
