"""Why a connection fails is reported as it is: real sockets, real certificates, one true sentence each."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from jobtester.domain.exchanges import Ending, OutgoingRequest
from jobtester.errors import GatewayError, LeaderboardError
from jobtester.gateway.client import GatewayClient
from jobtester.http import Proxies
from jobtester.leaderboard.client import LeaderboardClient as Leaderboard

_PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _PROXY_NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def certificate(folder: Path, *, name: str = "localhost", dates: tuple[str, str] = ("", "")) -> ssl.SSLContext:
    """Create a self-signed certificate with the openssl command; `dates` are its begin and end as YYYYMMDDHHMMSSZ."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")
    key, request, result = folder / "key.pem", folder / "request.pem", folder / "certificate.pem"

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder, timeout=120)

    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}",
            "-addext", f"subjectAltName=DNS:{name}")  # fmt: skip
    if dates[0]:
        (folder / "index.txt").write_text("")
        (folder / "serial").write_text("01\n")
        (folder / "ca.cnf").write_text(
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n"
            "policy=p\ncopy_extensions=copy\nunique_subject=no\n[p]\ncommonName=supplied\n"
        )
        openssl("ca", "-batch", "-selfsign", "-config", "ca.cnf", "-keyfile", str(key), "-in", str(request),
                "-out", str(result), "-startdate", dates[0], "-enddate", dates[1], "-notext")  # fmt: skip
    else:
        openssl("x509", "-req", "-in", str(request), "-key", str(key), "-out", str(result), "-days", "30",
                "-copy_extensions", "copy")  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(result, key)
    return context


@asynccontextmanager
async def serve_http(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve HTTP on loopback, over TLS with a context; yield the port."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.json_response({"regions": []})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve_bytes(response: bytes) -> AsyncIterator[int]:
    """Send these bytes to every client, then close; yield the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(response)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def error_messages(url: str) -> list[str]:
    """Return what each of the tester's clients reports about a URL: gateway, CLI port, job, Leaderboard, post."""
    texts = []
    client = GatewayClient("g", url, url)
    await client.open()
    try:
        texts.append(await client.find_problem(60))
        with pytest.raises(GatewayError) as gateway:
            await client.get_cli("/status", timeout_s=60)
        texts.append(str(gateway.value))
        sent = await client.send(OutgoingRequest("/llm", b"{}", job_id="1", timeout_s=60, max_bytes=1000))
        assert sent.ending is Ending.REFUSED
        texts.append(sent.detail)
    finally:
        await client.close()
    async with Leaderboard(url, "secret", timeout_s=60) as leaderboard:
        with pytest.raises(LeaderboardError) as raised:
            await leaderboard.get_regions()
        texts.append(str(raised.value))
        texts.append((await leaderboard.post(b"{}")).problem)
    return texts


@pytest.mark.parametrize(
    ("dates", "name", "trusted", "sentence"),
    [
        (("20200101000000Z", "20210101000000Z"), "localhost", True, "has expired; renew it"),
        (("20990101000000Z", "21000101000000Z"), "localhost", True, "not valid yet; check the clocks"),
        (("", ""), "localhost", False, "is self-signed"),
        (("", ""), "somebody.example", True, "is not made out to localhost"),
    ],
)
async def test_a_bad_certificate_is_named(
    dates: tuple[str, str], name: str, trusted: bool, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expired, not yet valid, self-signed, and somebody else's."""
    context = certificate(tmp_path, name=name, dates=dates)
    if trusted:
        trust = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trust)
    async with serve_http(context) as port:
        for text in await error_messages(f"https://localhost:{port}"):
            assert sentence in text
            assert "Nothing" not in text


async def test_plain_http_where_the_url_says_https() -> None:
    """The sentence has the URL to use instead."""
    async with serve_http() as port:
        for text in await error_messages(f"https://127.0.0.1:{port}"):
            assert f"does not speak TLS and the address says https; use http://127.0.0.1:{port}" in text


async def test_tls_where_the_url_says_http(tmp_path: Path) -> None:
    """Whether it closes the connection, sends an alert or, as Go and nginx do, explains itself."""
    client_url = "http://127.0.0.1:{}"
    async with serve_http(certificate(tmp_path)) as port:
        client = GatewayClient("g", client_url.format(port))
        await client.open()
        try:
            assert "use https" in await client.find_problem(60)
        finally:
            await client.close()
    alert = b"\x15\x03\x01\x00\x02\x02\x46"
    go = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    for response in (alert, go, b""):
        async with serve_bytes(response) as port:
            client = GatewayClient("g", client_url.format(port))
            await client.open()
            try:
                assert "use https" in await client.find_problem(60), response
            finally:
                await client.close()


def unused_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (lambda: f"http://127.0.0.1:{unused_port()}", "connection refused"),
        (lambda: "http://nobody.invalid:8935", "the name nobody.invalid cannot be resolved"),
    ],
)
async def test_refused_and_unknown_names(url: Callable[[], str], sentence: str) -> None:
    """Each has a sentence of its own."""
    for text in await error_messages(url()):
        assert sentence in text


async def test_a_silent_peer_is_reported_as_silent() -> None:
    """It accepts, and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = GatewayClient("g", f"http://127.0.0.1:{listener.getsockname()[1]}")
        await client.open()
        try:
            assert "no answer within 0.2 s" in await client.find_problem(0.2)
        finally:
            await client.close()


async def test_a_dead_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the proxy that does not answer, not the peer, for http and https alike."""
    port = unused_port()
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://user:word@127.0.0.1:{port}")
    for scheme in ("http", "https"):
        for text in await error_messages(f"{scheme}://gateway.test:8935"):
            assert f"the proxy http://127.0.0.1:{port} that the environment names cannot be reached" in text
            assert "word" not in text
            assert "NO_PROXY" in text


async def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own answer to CONNECT is passed on."""
    async with serve_bytes(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as port:
        monkeypatch.setenv("https_proxy", f"http://user:word@127.0.0.1:{port}")
        client = GatewayClient("g", "https://gateway.test:8935")
        await client.open()
        try:
            text = await client.find_problem(60)
        finally:
            await client.close()
    assert f"the proxy http://127.0.0.1:{port} refuses to connect: 403 Forbidden" in text
    assert "word" not in text


@pytest.mark.parametrize(
    ("exceptions", "url", "proxied"),
    [
        ("10.0.0.0/8", "http://10.2.3.4:8935", False),
        ("10.0.0.0/8", "http://11.2.3.4:8935", True),
        ("10.0.0.0/8", "http://[::ffff:10.2.3.4]:8935", False),
        ("fd00::/8", "http://[fd12::1]:8935", False),
        ("fd00::/8", "http://[2001:db8::1]:8935", True),
        ("[fd12::1]:8935", "http://[fd12::1]:8935", False),
        ("[fd12::1]:8935", "http://[fd12::1]:8936", True),
        ("FD12::0001", "http://[fd12::1]:8935", False),
        ("10.2.3.4:8935", "http://10.2.3.4:8935", False),
        ("10.2.3.4:8935", "http://10.2.3.4:8936", True),
        ("10.2.3.4", "http://10.2.3.45:8935", True),
        ("3.4", "http://10.2.3.4:8935", True),
        ("example.com", "http://example.com", False),
        ("example.com", "http://a.EXAMPLE.com", False),
        ("EXAMPLE.com", "http://a.example.com.", False),
        ("example.com", "http://notexample.com", True),
        (".example.com", "http://a.example.com", False),
        (".example.com", "http://example.com", True),
        ("*.example.com", "http://a.b.example.com", False),
        ("*.example.com", "http://example.com", True),
        ("example.com:80", "http://example.com", False),
        ("example.com:443", "http://example.com", True),
        (".svc,.cluster.local , 10.96.0.0/12", "http://gateway.livepeer.svc:8935", False),
        (" a , * ", "http://anything", False),
        ("*", "http://10.2.3.4:8935", False),
        ("", "http://example.com", True),
        (",,", "http://example.com", True),
        ("10.0.0.0/99", "http://10.0.0.1", True),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(exceptions: str, url: str, proxied: bool) -> None:
    """Networks, ports, domains with and without a leading dot, any case, IPv6, and the star."""
    proxies = Proxies({"http": "http://proxy:3128", "no": exceptions})
    assert bool(proxies.request_arguments(url)) is proxied


async def test_a_gateway_that_a_reload_took_away_does_not_answer() -> None:
    """The heartbeat and /readyz may still be about to ask it."""
    client = GatewayClient("g", "http://127.0.0.1:1")
    await client.open()
    await client.close()
    assert not await client.is_alive()
