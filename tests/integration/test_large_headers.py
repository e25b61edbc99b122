"""Headers are accepted up to the size that Go accepts: a long one is nobody's failure."""

from __future__ import annotations

import asyncio

import pytest

from jobtester.domain.exchanges import Ending, OutgoingRequest
from jobtester.gateway.client import GatewayClient

_BODY = b'{"images": []}'


@pytest.mark.parametrize("size", [100, 8_190, 9_000, 500_000])
async def test_large_headers_are_read(size: int) -> None:
    """A balance or a policy in a header may be long; only the body counts."""

    async def gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"job body")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Metadata: " + b"a" * size + b"\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(gateway, "127.0.0.1", 0) as server:
        client = GatewayClient("g", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await client.open()
        try:
            exchange = await client.send(
                OutgoingRequest("/llm", b"a job body", job_id="j", timeout_s=30, max_bytes=2**20)
            )
        finally:
            await client.close()
    assert (exchange.ending, exchange.body) == (Ending.ANSWERED, _BODY), exchange.detail
