"""What a remote peer or a reload once ended the daemon with is an ordinary answer now."""

from __future__ import annotations

import asyncio

from jobtester.gateway.client import GatewayClient as GatewayClient
from jobtester.leaderboard.client import LeaderboardClient, PostResult


async def test_a_post_that_is_answered_with_a_large_page_is_uncertain() -> None:
    """A captive portal sends more than any Leaderboard does."""

    async def portal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\nConnection: close\r\n\r\n" + b"a" * 200_000)
        writer.close()

    async with await asyncio.start_server(portal, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with LeaderboardClient(url, "s") as client:
            assert (await client.post(b"{}")).result is PostResult.UNCERTAIN


async def test_a_gateway_that_a_reload_took_away_does_not_answer() -> None:
    """The heartbeat and /readyz may still be about to ask it."""
    client = GatewayClient("g", "http://127.0.0.1:1")
    await client.open()
    await client.close()
    assert not await client.is_alive()
