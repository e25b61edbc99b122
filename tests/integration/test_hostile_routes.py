"""Whatever is sent to the daemon's port gets a defined answer, causes no internal error, and logs nothing."""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec
from jobtester.web.requests import BodyReadError, read_limited
from tests.harness.process import DaemonProcess, running_daemon, write_config

SERVER = {"results_secret": "s", "admin_token": "t", "host": "127.0.0.1", "port": 0}
SCENARIO = generate(
    seed=4, orchestrators=2, pipelines=("llm",), gateways=(GatewaySpec("g", mode="query", events=True),)
)


def request(method: str, path: str, body: bytes = b"", headers: bytes = b"", close: bytes = b"close") -> bytes:
    """Write a request byte by byte, as no well-behaved client lets one."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode("latin-1")
    return head + headers + length + b"Connection: " + close + b"\r\n\r\n" + body


def chunked_request(path: str, body: bytes) -> bytes:
    """Write a POST in chunks, which may be none."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body


POSTS = ("/api/post_stats", "/webhooks/test-results", "/webhooks/gateway-events")
RAW: dict[str, bytes] = {
    "header of 20 kB": request("GET", "/", headers=b"X: " + b"a" * 20_000 + b"\r\n"),
    "5,000 headers": request("GET", "/", headers=b"".join(b"X-%d: a\r\n" % number for number in range(5_000))),
    "address of 20 kB": request("GET", "/api/results?model=" + "a" * 20_000),
    "unknown method": request("BREW", "/"),
    "bytes for a method": request("\x00\x01", "/"),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 100,
    "bytes in the path": request("GET", "/r/\xff\xfe"),
    "another host's address": b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "every address": request("OPTIONS", "*"),
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade": request("GET", "/", headers=b"Upgrade: websocket\r\n", close=b"Upgrade, close"),
    "length and chunks": chunked_request(POSTS[0], b"0\r\n\r\n").replace(b"Host: x", b"Host: x\r\nContent-Length: 5"),
    "negative length": request("POST", POSTS[0], headers=b"Content-Length: -5\r\n"),
    "endless length": request("POST", POSTS[0], headers=b"Content-Length: 99999999999999999999999\r\n"),
    "odd expectation": request("POST", POSTS[0], b"abcde", b"Expect: nonsense\r\n"),
    "a range backwards": request("GET", "/static/style.css", headers=b"Range: bytes=5-1\r\n"),
    "bytes in cookies": request("GET", "/", headers=b"Cookie: \xff=;;;=\r\nAccept-Encoding: gzip;q=x, \xff\r\n"),
    "bytes for a token": request("POST", "/api/ticks", b"{}", b"Authorization: Bearer \xff\xfe\x80\r\n"),
    **{f"chunks of junk at {path}": chunked_request(path, b"4\r\nabcd\r\nzz\r\njunk\r\n") for path in POSTS},
    **{f"no chunks at {path}": chunked_request(path, b"zz\r\n") for path in POSTS},
    **{f"broken gzip at {path}": request("POST", path, b"junk", b"Content-Encoding: gzip\r\n") for path in POSTS},
    **{f"brotli at {path}": request("POST", path, b"junk", b"Content-Encoding: br\r\n") for path in POSTS},
    **{
        f"a bomb at {path}": request("POST", path, gzip.compress(b"0" * 2**24), b"Content-Encoding: gzip\r\n")
        for path in POSTS
    },
    **{
        f"bytes for a signature at {path}": request("POST", path, b"{}", b"Authorization: \xff\x80\r\n")
        for path in POSTS
    },
}  # fmt: skip

NOTHING = "0x" + "0" * 40
PATHS = (
    "/", "/%00", "//", "/../..", "/?limit=-1&page=1e9&tick=%00", "/" + "%2f" * 500, "/orchestrators/%00",
    "/orchestrators/..%2f..", "/orchestrators?x=%FF", "/metrics?%00", "/healthz?a=%FF", "/readyz?%FF", "/live/x",
    "/r/%00", "/r/%FF%FE", "/r/" + "r" * 3_000, "/t/%00", "/t/%ED%A0%80", "/o/%00", "/o/0xÿ", "/outbox?state=%00",
    "/t/last?outcome=%FF%FE", "/t/last?outcome=%00&reason=%ED%A0%80", "/t/last?before=-1", "/t/last?before=1e9",
    "/t/last?before=99999999999999999999999", "/t/last?before=%C2%B2", f"/o/{NOTHING}?before=%00",
    "/static/", "/static/../../pyproject.toml", "/static/%2e%2e/%2e%2e/pyproject.toml", "/static/..%2f..%2fpages.py",
    "/static/%2fetc%2fpasswd", "/static/%00", "/static/" + "a" * 300, "/static/" + "a/" * 1_000,
    "/api/", "/api/results?limit=-1&page=1e9&tick=%00", "/api/results?tick=%00", "/api/results?model=%00",
    "/api/results?model=%FF%FE", "/api/results?limit=1e9", "/api/results?limit=%D9%A1", "/api/results?cursor=-1",
    "/api/results?cursor=99999999999999999", "/api/results?reason=%00", "/api/results?" + "a=1&" * 1_500,
    "/api/results/%00", "/api/results/%ED%A0%80", "/api/ticks/%00", "/api/ticks?cursor=%00", "/api/openapi.json?%00=",
    "/api/orchestrators/%00", "/api/orchestrators?cursor=%00", f"/api/orchestrators/{NOTHING}%00",
    "/api/received?cursor=999999999999999999", "/api/received?cursor=99999999999999999", "/api/outbox?cursor=%FF",
    *POSTS, "/api/ticks",
)  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


async def exchange(port: int, data: bytes, *, max_bytes: int = -1, hang_up: bool = False) -> bytes:
    """Send bytes and read until the other side is done, or has sent `most`; with `hang_up` cut the line at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        if hang_up:
            writer.transport.abort()
            return b""
        async with asyncio.timeout(100):
            return await reader.read(max_bytes)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def status(answer: bytes) -> int:
    """Read an answer's status, 0 where the line was cut instead."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


@asynccontextmanager
async def attacked_daemon(folder: Path) -> AsyncIterator[DaemonProcess]:
    """Run the shipped daemon; after the attack it is healthy, and no line of its log is an error or a traceback."""
    async with Network(SCENARIO) as network:
        write_config(network, folder, gateways=[{"events": True}], server=SERVER)
        async with running_daemon(folder) as daemon:
            yield daemon
            assert status(await exchange(daemon.port, request("GET", "/healthz"))) == 200
        assert [line for line in daemon.lines if line["event"] == "noise" or line["level"] == "error"] == []


async def test_no_request_causes_an_internal_error(tmp_path: Path) -> None:
    """Every path with every method, and bytes that are no HTTP: nothing from 500 on, nothing of another folder."""
    async with attacked_daemon(tmp_path) as daemon:
        for name, data in RAW.items():
            assert status(await exchange(daemon.port, data, max_bytes=100)) < 500, name
        for path in PATHS:
            sends = [exchange(daemon.port, request(method, path)) for method in METHODS]
            for method, answer in zip(METHODS, await asyncio.gather(*sends), strict=True):
                assert 200 <= status(answer) < 500, (method, path[:100], answer[:300])
                assert b"[build-system]" not in answer
                assert b"root:" not in answer
                if path.startswith("/api/") and status(answer) >= 400 and method != "HEAD":
                    assert b'{"error":' in answer, (method, path)


async def test_a_peer_that_hangs_up_halfway_leaves_no_trace(tmp_path: Path) -> None:
    """Bodies that break off, answers that nobody reads, and many silent lines at once, while others are served."""
    async with attacked_daemon(tmp_path) as daemon:
        for path in (*POSTS, "/api/ticks", "/orchestrators"):
            half = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nabc".encode()
            for data in (half, half[:-80], chunked_request(path, b"4\r\nab"), request("GET", path)):
                await exchange(daemon.port, data, hang_up=True)
        async with asyncio.timeout(100):
            while not re.search(rb'received_total\{outcome="refused"[^}]*\} [1-9]', await metrics(daemon)):
                pass
        for path in ("/live", "/", "/metrics", "/static/style.css"):
            await exchange(daemon.port, request("GET", path, close=b"keep-alive"), hang_up=True)
        silent = [await asyncio.open_connection("127.0.0.1", daemon.port) for _ in range(200)]
        for number, (_, writer) in enumerate(silent):
            writer.write(
                b"POST /webhooks/gateway-events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"[: number % 80]
            )
        answers = await asyncio.gather(*(exchange(daemon.port, request("GET", "/orchestrators")) for _ in range(50)))
        assert {status(answer) for answer in answers} == {200}
        for _, writer in silent:
            writer.transport.abort()


async def metrics(daemon: DaemonProcess) -> bytes:
    """Read /metrics."""
    return await exchange(daemon.port, request("GET", "/metrics"))


async def test_two_requests_on_one_line_stay_two(tmp_path: Path) -> None:
    """What follows a body is the next request, whatever the first was answered."""
    async with attacked_daemon(tmp_path) as daemon:
        for path in POSTS:
            both = request("POST", path, b"null", close=b"keep-alive") + request("GET", "/api/status")
            answer = await exchange(daemon.port, both)
            assert answer.count(b"HTTP/1.1 ") == 2
            assert b'"outbox"' in answer


async def test_a_body_that_never_ends_is_abandoned() -> None:
    """It ends with 408 after its timeout: a connection cannot be held for nothing."""
    app = web.Application()
    errors: list[BodyReadError] = []

    async def take(request: web.Request) -> web.Response:
        with pytest.raises(BodyReadError) as caught:
            await read_limited(request, 1_000, timeout_s=0.1)
        errors.append(caught.value)
        return web.Response(status=caught.value.status)

    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        slow = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nabc"
        began = time.monotonic()
        assert status(await asyncio.wait_for(_first_line(runner.addresses[0][1], slow), 100)) == 408
        assert time.monotonic() - began >= 0.1
        assert [error.status for error in errors] == [408]
    finally:
        await runner.cleanup()


async def _first_line(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await reader.readline()
    finally:
        writer.close()
