"""Which requests a tester takes back or ends when it stops: never one that belongs to a job which has begun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from jobtester.domain.exchanges import Ending, Exchange, OutgoingRequest
from jobtester.live_runner.client import LiveRunnerClient
from tests.harness.live_runners import LOOPBACK
from tests.harness.waiting import until


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, list[str]]]:
    """Accept connections and answer nothing, not even the handshake of TLS; yield the address, and who came."""
    came: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append("connection")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", came


async def test_only_the_first_request_of_a_job_is_withdrawn() -> None:
    """A job that has paid or has a session goes on: its next request is not taken back while it connects."""
    client = LiveRunnerClient(LOOPBACK)
    await client.open()
    try:
        async with silent_server() as (address, came):
            requests = {
                name: OutgoingRequest(f"https://{address}/", b"", name, 30, 1000, is_follow_up=name == "follow-up")
                for name in ("first", "follow-up")
            }
            sending = {name: asyncio.create_task(client.send(request)) for name, request in requests.items()}
            await until(lambda: len(came) == 2, "both connections are being opened")
            client.sender.withdraw_unsent()
            assert (await sending["first"]).ending is Ending.WITHDRAWN
            assert not sending["follow-up"].done()
            client.sender.abort()
            assert (await sending["follow-up"]).ending is Ending.ABORTED
    finally:
        await client.close()


async def test_a_request_that_outlives_an_abort_goes_on() -> None:
    """A reservation has to be answered for its session to be stopped."""
    client = LiveRunnerClient(LOOPBACK)
    await client.open()
    try:
        async with silent_server() as (address, came):
            requests = [
                OutgoingRequest(f"http://{address}/", b"", "job", 30, 1000, outlives_abort=outlives)
                for outlives in (False, True)
            ]
            tasks = [asyncio.create_task(client.send(request)) for request in requests]
            await until(lambda: len(came) == 2 and client.sender.sent_at(requests[1]), "both are sent")
            client.sender.abort()
            ended: Exchange = await tasks[0]
            assert ended.ending is Ending.ABORTED
            assert not tasks[1].done()
            tasks[1].cancel()
            await asyncio.wait({tasks[1]})
            assert client.sender.sent_at(requests[1]) is None
    finally:
        await client.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "localhost"])
async def test_nothing_is_sent_to_the_testers_own_machine(host: str) -> None:
    """Neither by its name nor by its address: service URIs and lists come from anybody."""
    client = LiveRunnerClient()
    await client.open()
    try:
        async with silent_server() as (address, came):
            url = f"http://{host}:{address.rpartition(':')[2]}/"
            exchange = await client.send(OutgoingRequest(url, b"", "job", 5, 1000))
            assert exchange.ending is Ending.REFUSED
            assert came == []
    finally:
        await client.close()
