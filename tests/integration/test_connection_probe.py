"""The probe of a service URI distinguishes a dead orchestrator from a live one, and from the tester's own network."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

import pytest

from jobtester.domain.attempts import ConnectionState
from jobtester.gateway.connection_probe import ConnectionProbe

LISTEN = ("127.0.0.1", 0)


@asynccontextmanager
async def listener(*, responds: bool = True) -> AsyncIterator[str]:
    """Listen, and respond with something other than TLS, or with nothing; yield the URI."""
    ended = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if responds:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        else:
            await ended.wait()
        writer.close()

    async with await asyncio.start_server(serve, *LISTEN) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ended.set()


def dead_uri() -> str:
    """Return a URI at which nobody listens."""
    with socket.socket() as free:
        free.bind(LISTEN)
        return f"https://127.0.0.1:{free.getsockname()[1]}"


def probe(*uris: str, pauses: list[float] | None = None, timeout_s: float = 20.0) -> ConnectionProbe:
    """Return a probe that does not really pause."""

    async def sleep(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)

    return ConnectionProbe(uris, timeout_s=timeout_s, sleep=sleep)


async def test_refused_while_another_answers() -> None:
    """Twice refused, with a pause between: nobody can reach it."""
    pauses: list[float] = []
    async with listener() as other:
        dead = dead_uri()
        connection = await probe(dead, other, pauses=pauses).probe(dead)
    assert connection.state is ConnectionState.UNREACHABLE
    assert dead in connection.summary
    assert "connection refused" in connection.summary
    assert pauses == [2.0]


async def test_silent_while_another_answers() -> None:
    """A connection is taken and TLS never begins."""
    async with listener(responds=False) as silent, listener() as other:
        connection = await probe(silent, other, timeout_s=0.3).probe(silent)
    assert connection.state is ConnectionState.UNREACHABLE


@pytest.mark.parametrize("others", [0, 1, 12])
async def test_nobody_answers(others: int) -> None:
    """Where nobody at all can be reached it may be the tester's own network."""
    dead = dead_uri()
    connection = await probe(dead, *(dead_uri() for _ in range(others))).probe(dead)
    assert connection.state is ConnectionState.UNKNOWN


async def test_the_same_endpoint_is_no_other() -> None:
    """A second spelling of a dead service URI says nothing about the network."""
    dead = dead_uri()
    assert (await probe(dead, dead + "/").probe(dead)).state is ConnectionState.UNKNOWN


async def test_one_that_responds() -> None:
    """Whatever it speaks, it is there."""
    async with listener() as live:
        assert (await probe(live).probe(live)).state is ConnectionState.REACHABLE


async def test_the_second_attempt_may_succeed() -> None:
    """An orchestrator that comes back in the pause is not held to be dead."""
    dead = dead_uri()
    port = int(dead.rpartition(":")[2])
    servers: list[asyncio.Server] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello, this is no TLS\r\n")
        writer.close()

    async def sleep(_: float) -> None:
        servers.append(await asyncio.start_server(serve, "127.0.0.1", port))

    connection = await ConnectionProbe((dead,), timeout_s=20.0, sleep=sleep).probe(dead)
    for server in servers:
        server.close()
    assert connection.state is ConnectionState.REACHABLE


@pytest.mark.parametrize("uri", ["", "https://", "https://127.0.0.1:99999", "https://[::1", "nonsense://"])
async def test_what_is_no_address_is_charged_to_nobody(uri: str) -> None:
    """A service URI that cannot be read says nothing of who is behind it."""
    assert (await probe(uri).probe(uri)).state is ConnectionState.UNKNOWN


@asynccontextmanager
async def tls_listener() -> AsyncIterator[str]:
    """Listen with TLS and a certificate that nobody has signed; yield the URI."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(files("jobtester.simulator").joinpath("orchestrator.pem")))

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, *LISTEN, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_broken_tls_is_unreachable_where_tls_is_needed() -> None:
    """Twice, and only if the tester's own TLS works with another: what answers without TLS does not show that."""
    async with listener() as broken, listener() as other, tls_listener() as sound:
        assert (await probe(broken, sound).probe(broken)).state is ConnectionState.REACHABLE
        pauses: list[float] = []
        connection = await probe(broken, sound, pauses=pauses).probe(broken, needs_tls=True)
        assert connection.state is ConnectionState.UNREACHABLE
        assert "TLS fails" in connection.summary
        assert len(pauses) == 1
        plain = other.replace("https://", "http://")
        for others in ((), (other,), (plain,)):
            connection = await probe(broken, *others).probe(broken, needs_tls=True)
            assert connection.state is ConnectionState.UNKNOWN
        assert (await probe(plain, sound).probe(plain, needs_tls=True)).state is ConnectionState.REACHABLE
        assert (await probe(sound).probe(sound, needs_tls=True)).state is ConnectionState.REACHABLE
