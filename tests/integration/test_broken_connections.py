"""How a job's connection ends shows whether the gateway may still work on the job."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest

from jobtester.domain.exchanges import Ending, OutgoingRequest
from jobtester.gateway.client import GatewayClient

_NO_LINGER = struct.pack("ii", 1, 0)  # on closing, the kernel sends a reset at once


def close(_writer: asyncio.StreamWriter) -> None:
    """Close in order without a response, as a gateway does that crashes over a job."""


def reset(writer: asyncio.StreamWriter) -> None:
    """Reset the connection, as the network may do."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def respond(status: str) -> Callable[[asyncio.StreamWriter], None]:
    """Return a function that responds with a status."""
    return lambda writer: writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}".encode())


@pytest.mark.parametrize(
    ("respond_with", "ending", "may_continue"),
    [
        (close, Ending.NO_REPLY, False),
        (reset, Ending.CUT_SHORT, True),
        (respond("200 OK"), Ending.ANSWERED, False),
        (respond("503 Service Unavailable"), Ending.ANSWERED, False),
        (respond("502 Bad Gateway"), Ending.ANSWERED, True),
        (respond("504 Gateway Timeout"), Ending.ANSWERED, True),
    ],
)
async def test_a_gateway_may_continue_after_an_end_that_is_not_its_own(
    respond_with: Callable[[asyncio.StreamWriter], None], ending: Ending, may_continue: bool
) -> None:
    """Then the lease has to stay, since the gateway may still ask for this job."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'{"job": 1}')
        respond_with(writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = GatewayClient("g", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await client.open()
        exchange = await client.send(OutgoingRequest("/llm", b'{"job": 1}', job_id="j", timeout_s=20, max_bytes=1000))
        await client.close()
    assert (exchange.ending, exchange.gateway_may_continue) == (ending, may_continue)
