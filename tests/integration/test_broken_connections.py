"""Who left first: a job's connection that ends without the gateway's own answer, in each of the ways there are."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest

from jobtester.domain.exchanges import Ending
from jobtester.gateway.client import GatewayClient

_AT_ONCE = struct.pack("ii", 1, 0)  # linger for no time: the kernel sends a reset


def closes(_writer: asyncio.StreamWriter) -> None:
    """Close in order without a word, as a gateway does that crashes over a job."""


def resets(writer: asyncio.StreamWriter) -> None:
    """Break the connection, as the network between does when it has had enough of it."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)


def says(status: str) -> Callable[[asyncio.StreamWriter], None]:
    """Answer with a status."""
    return lambda writer: writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}".encode())


@pytest.mark.parametrize(
    ("answer", "ending", "at_work"),
    [
        (closes, Ending.NO_REPLY, False),
        (resets, Ending.CUT_SHORT, True),
        (says("200 OK"), Ending.ANSWERED, False),
        (says("503 Service Unavailable"), Ending.ANSWERED, False),
        (says("502 Bad Gateway"), Ending.ANSWERED, True),
        (says("504 Gateway Timeout"), Ending.ANSWERED, True),
    ],
)
async def test_a_gateway_may_still_be_at_work_after_what_is_not_its_own(
    answer: Callable[[asyncio.StreamWriter], None], ending: Ending, at_work: bool
) -> None:
    """Then the lease has to stay, since what the gateway was told before may yet take effect."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'{"job": 1}')
        answer(writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = GatewayClient("g", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await client.open()
        exchange = await client.send(
            "/llm", b'{"job": 1}', job_id="j", timeout_s=20, content_type="application/json", max_bytes=1000
        )
        await client.close()
    assert (exchange.ending, exchange.gateway_may_continue) == (ending, at_work)
