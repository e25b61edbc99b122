"""A simulated port closes whole: a client that was just connecting is let in and sent away, and nothing stays open."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

import pytest
from aiohttp import web

from jobtester.simulator.server import start_listening


@pytest.mark.parametrize("turns", range(5))
async def test_who_is_just_connecting_is_sent_away(turns: int) -> None:
    """However far the connection has come: the client sees its end; what is left open would be an error here."""
    runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
    await start_listening(runner, "127.0.0.1", 0)
    with socket.create_connection(runner.addresses[0][:2]) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await runner.cleanup()
        gc.collect()
        client.settimeout(30)
        with contextlib.suppress(ConnectionResetError):  # it had not been accepted
            assert await asyncio.to_thread(client.recv, 1) == b""
