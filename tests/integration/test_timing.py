"""The clock of a round trip stops when the last bytes arrive, not when a busy event loop gets to them."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time

import pytest

from jobtester.domain.exchanges import Ending, Exchange, OutgoingRequest
from jobtester.gateway.client import GatewayClient
from jobtester.gateway.request_timer import SO_TIMESTAMPNS, TIMESPEC, read_age_s

_TURN_S = 0.05  # how long the loop is kept busy in each of its turns
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_BODY = b'{"images": []}'


async def _send_job(response: bytes, *, first_token: re.Pattern[bytes] | None = None) -> tuple[Exchange, float]:
    """Send a job to a gateway with this response while the loop is busy; return also when send() returned."""

    async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"job body")
        writer.write(response)
        await writer.drain()
        writer.close()

    async def busy() -> None:
        while True:
            time.sleep(_TURN_S)  # noqa: ASYNC251 - a blocked loop is what is tested
            await asyncio.sleep(0)

    async with await asyncio.start_server(gateway, "127.0.0.1", 0) as server:
        client = GatewayClient("g", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await client.open()
        hog = asyncio.ensure_future(busy())
        try:
            exchange = await client.send(
                OutgoingRequest(
                    "/llm", b"a job body", job_id="j", timeout_s=30, max_bytes=2**20, first_token=first_token
                )
            )
            return exchange, time.monotonic()
        finally:
            hog.cancel()
            await client.close()


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(_HEAD + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY, id="length"),
        pytest.param(_HEAD + b"Transfer-Encoding: chunked\r\n\r\ne\r\n" + _BODY + b"\r\n0\r\n\r\n", id="chunked"),
        pytest.param(_HEAD + b"\r\n" + _BODY, id="until the connection closes"),
    ],
)
async def test_a_busy_loop_does_not_count_after_the_last_bytes(response: bytes) -> None:
    """At least one whole turn of the loop lies between the bytes and the task that waits for them."""
    exchange, returned = await _send_job(response)
    assert (exchange.ending, exchange.body) == (Ending.ANSWERED, _BODY)
    assert exchange.sent_monotonic < exchange.ended_monotonic <= returned - _TURN_S


async def test_a_busy_loop_does_not_count_after_the_first_token() -> None:
    """The first token is there when its bytes are."""
    exchange, returned = await _send_job(
        _HEAD + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY, first_token=re.compile(b"images")
    )
    assert exchange.first_token_s is not None
    assert exchange.first_token_s == pytest.approx(exchange.round_trip_s)
    assert exchange.sent_monotonic + exchange.first_token_s <= returned - _TURN_S


@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel stamps the bytes of a connection")
async def test_a_busy_loop_does_not_count_before_the_last_bytes_are_read() -> None:
    """The round trip ends when the bytes reach the machine, however late the event loop gets to read them."""
    written: list[float] = []

    async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"job body")
        await asyncio.sleep(_TURN_S)  # a job takes a while, within which the kernel begins to stamp
        writer.write(_HEAD + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY)
        written.append(time.monotonic())
        time.sleep(_TURN_S)  # noqa: ASYNC251 - a blocked loop is what is tested
        await reader.read()  # until the client closes: the kernel counts a close as the last byte
        writer.close()

    async with await asyncio.start_server(gateway, "127.0.0.1", 0) as server:
        client = GatewayClient("g", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await client.open()
        exchange = await client.send(OutgoingRequest("/llm", b"a job body", job_id="j", timeout_s=30, max_bytes=2**20))
        await client.close()
    assert exchange.body == _BODY
    assert exchange.ended_monotonic == pytest.approx(written[0], abs=_TURN_S / 5)


_NOW_NS = 1_700_000_000 * 10**9


@pytest.mark.parametrize(
    ("stamps", "age_s"),
    [
        pytest.param([(1_699_999_999, 999_000_000)], 0.001, id="a stamp"),
        pytest.param([], 0.0, id="a kernel that stamps nothing"),
        pytest.param([(1_700_000_003, 0)], 0.0, id="the wall clock was set back"),
        pytest.param([(1_699_996_400, 0)], 0.0, id="the wall clock was set forward"),
    ],
)
def test_a_stamp_is_the_age_of_what_was_read(stamps: list[tuple[int, int]], age_s: float) -> None:
    """An age that only a wall clock explains that was set falsifies no round trip."""
    ancillary = [(socket.SOL_SOCKET, SO_TIMESTAMPNS, TIMESPEC.pack(*stamp)) for stamp in stamps]
    others = [(socket.SOL_SOCKET, SO_TIMESTAMPNS + 1, TIMESPEC.pack(0, 0)), (socket.SOL_SOCKET, SO_TIMESTAMPNS, b"?")]
    assert read_age_s([*others, *ancillary], _NOW_NS) == pytest.approx(age_s)


async def test_the_parts_of_a_round_trip_are_told_apart() -> None:
    """Connecting is not in the round trip; waiting ends with the headers, and what follows is the transfer."""
    pause_s = 0.1

    async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"job body")
        await asyncio.sleep(pause_s)
        writer.write(_HEAD + b"Content-Length: %d\r\n\r\n" % len(_BODY))
        await writer.drain()
        await asyncio.sleep(2 * pause_s)
        writer.write(_BODY)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(gateway, "127.0.0.1", 0) as server:
        client = GatewayClient("g", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", token="secret")
        await client.open()
        exchange = await client.send(OutgoingRequest("/llm", b"a job body", job_id="j", timeout_s=30, max_bytes=2**20))
        await client.close()
    assert exchange.connect_s is not None
    assert exchange.first_byte_s is not None
    assert exchange.connect_s > 0
    assert pause_s <= exchange.first_byte_s
    assert exchange.first_byte_s + 2 * pause_s <= exchange.round_trip_s + 0.01
    assert exchange.request is not None
    assert exchange.request.headers["Authorization"] == "Bearer ****"
    assert "secret" not in repr(exchange.request)


async def test_without_an_answer_there_is_no_first_byte() -> None:
    """A refused connection has no parts: nothing was sent, and nothing came. A password in the URL is masked."""
    client = GatewayClient("g", "http://user:secret@127.0.0.1:1")
    await client.open()
    exchange = await client.send(OutgoingRequest("/llm", b"a job body", job_id="j", timeout_s=5, max_bytes=2**20))
    await client.close()
    assert (exchange.ending, exchange.connect_s, exchange.first_byte_s) == (Ending.REFUSED, None, None)
    assert exchange.request is not None
    assert exchange.request.url == "http://****@127.0.0.1:1/llm"
