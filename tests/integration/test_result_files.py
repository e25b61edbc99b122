"""Files are fetched from where the gateway keeps them, and from nowhere that a response must not lead the tester to."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from jobtester.gateway.address_guard import is_allowed
from jobtester.gateway.client import GatewayClient
from jobtester.gateway.result_files import FileFetcher, ResultFile

PICTURE = b"\x89PNG\r\n\x1a\n and so on"
OWN = "points at an address of the tester itself"


@dataclass
class FileServer:
    """A server that records requests, and responds with its `pages`: status, headers, content."""

    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    @property
    def port(self) -> int:
        """Return its port."""
        return urlsplit(self.url).port or 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Respond to one request; an endless page never ends."""
        self.asked.append((request.raw_path, dict(request.headers)))
        status, headers, content = self.pages.get(request.path, (404, {}, b"ErrNotFound"))
        if content != b"endless":
            return web.Response(status=status, headers=headers, body=content)
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65_536))
            await asyncio.sleep(0)


@asynccontextmanager
async def file_server(host: str = "127.0.0.1", **pages: tuple[int, dict[str, str], bytes]) -> AsyncIterator[FileServer]:
    """Run a file server with these pages."""
    server = FileServer({f"/{name}": page for name, page in pages.items()})
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0).start()
        server.url = f"http://{host}:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


async def fetch(gateway: FileServer, url: str, *, token: str | None = None, max_bytes: int = 1000) -> ResultFile:
    """Fetch as the tester does, through its client of the gateway."""
    client = GatewayClient("gateway", gateway.url, token=token)
    await client.open()
    try:
        return await client.fetch(url, timeout_s=10, max_bytes=max_bytes)
    finally:
        await client.close()


def own_address() -> str:
    """Return an address of this machine other than loopback; skip the test where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.77", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network but loopback")
        address: str = probe.getsockname()[0]
    return address


async def test_the_gateways_files_are_fetched() -> None:
    """Relative and absolute, in any case of the host, and through its own redirections; the token goes along."""
    async with file_server(
        a=(200, {"Content-Type": "image/png"}, PICTURE), b=(302, {"Location": "/a"}, b"")
    ) as gateway:
        for url in ("/a", "/b", f"{gateway.url}/a", f"{gateway.url.replace('http', 'HTTP')}/a", "/a?X-Signature=a%2Fb"):
            file = await fetch(gateway, url, token="secret")
            assert (file.problem, file.status, file.body) == ("", 200, PICTURE), url
            assert file.content_type == "image/png"
            assert file.seconds > 0
        assert {headers["Authorization"] for _, headers in gateway.asked} == {"Bearer secret"}
        assert gateway.asked[-1][0] == "/a?X-Signature=a%2Fb"


async def test_a_gateway_behind_a_path_of_a_proxy_keeps_its_files_there_too() -> None:
    """What is relative goes on where the gateway's address ends; what is absolute is left as it is."""
    async with file_server() as proxy:
        proxy.pages |= {"/one/stream/a.png": (200, {}, PICTURE), "/b.png": (200, {}, PICTURE)}
        behind_path = FileServer(url=f"{proxy.url}/one")
        assert (await fetch(behind_path, "/stream/a.png?x=1")).body == PICTURE
        assert (await fetch(behind_path, f"{proxy.url}/b.png")).body == PICTURE
        assert [path for path, _ in proxy.asked] == ["/one/stream/a.png?x=1", "/b.png"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "LOCALHOST", "2130706433", "0x7f000001", "017700000001", "127.1", "127.0.0.2",
     "0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]",
     "[2002:7f00:1::]", "[fe80::1]", "[fe80::1%25lo]", "169.254.169.254", "[::ffff:169.254.169.254]", "224.0.0.1",
     "user@127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "[fd00:ec2::254]", "[fd12::1]", "168.63.129.16",
     "[::ffff:168.63.129.16]", "[64:ff9b::a83f:8110]", "100.100.100.200", "100.64.0.1", "[64:ff9b::100.100.100.200]",
     "[2002:a00:1::]", "[2002:6464:64c8::1]", "0.1.2.3", "240.0.0.1", "255.255.255.255", "[ff02::1]", "[fec0::1]",
     "192.0.2.1", "198.18.0.1", "[2001:db8::1]", "[64:ff9b:1::a00:1]", "[2a00:1450::5efe:10.0.0.1]"],
)  # fmt: skip
async def test_the_testers_own_addresses_are_refused_however_they_are_written(host: str) -> None:
    """A server beside the gateway, on the tester's own machine, is never asked: not directly, not by redirection."""
    async with file_server() as secret:
        target = f"http://{host}:{secret.port}/x.png"
        async with file_server(go=(307, {"Location": target}, b"")) as gateway:
            for url in (target, "/go", target.removeprefix("http:")):
                file = await fetch(gateway, url)
                assert OWN in file.problem, file.problem
                assert (file.status, file.body) == (None, b"")
        assert secret.asked == []


async def test_the_machines_other_addresses_are_its_own_too() -> None:
    """What listens on an address of the local network, or under the machine's name, is refused like loopback."""
    address = own_address()
    async with file_server(address) as secret, file_server() as gateway:
        for host in (address, f"[::ffff:{address}]", socket.gethostname()):
            file = await fetch(gateway, f"http://{host}:{secret.port}/x.png")
            assert OWN in file.problem, (host, file.problem)
        assert secret.asked == []


async def test_the_gateway_may_live_anywhere() -> None:
    """One at an address that would be refused otherwise is asked, at its own port and no other."""
    async with file_server(own_address(), a=(200, {}, PICTURE)) as gateway, file_server(own_address()) as secret:
        assert (await fetch(gateway, "/a")).body == PICTURE
        assert OWN in (await fetch(gateway, f"{secret.url}/a")).problem
        assert secret.asked == []


async def test_networks_that_the_operator_names_are_allowed() -> None:
    """A file store on a private network is used where gateways.artifact_networks names it, and only there."""
    async with (
        file_server(a=(200, {}, PICTURE)) as store,
        file_server(b=(307, {"Location": f"{store.url}/a"}, b"")) as gateway,
    ):
        for networks, allowed in ((("127.0.0.0/8",), True), (("10.0.0.0/8", "fd00::/8"), False)):
            client = GatewayClient("gateway", gateway.url, artifact_networks=networks)
            await client.open()
            try:
                for url in (f"{store.url}/a", f"http://[::ffff:127.0.0.1]:{store.port}/a", "/b"):
                    file = await client.fetch(url, timeout_s=10, max_bytes=1000)
                    assert ("artifact_networks" in file.problem) is not allowed, (url, file.problem)
            finally:
                await client.close()
        assert len(store.asked) >= 2


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "100.128.0.1", "172.32.0.1", "168.63.129.17", "2606:4700:4700::1111",
                "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"],
)  # fmt: skip
def test_public_addresses_are_allowed(address: str) -> None:
    """The neighbors of what is refused, and public addresses in other notations."""
    assert is_allowed(address)


async def test_the_gateways_own_files_under_another_name_of_it() -> None:
    """By its address where it is configured by name, at its own port; not at another one."""
    async with file_server(a=(200, {}, PICTURE)) as gateway, file_server(a=(200, {}, PICTURE)) as other:
        by_name = FileServer(url=gateway.url.replace("127.0.0.1", "localhost"))
        assert (await fetch(by_name, f"{gateway.url}/a")).body == PICTURE
        for url in (f"{other.url}/a", f"{other.url}/a".replace("127.0.0.1", "localhost")):
            assert OWN in (await fetch(by_name, url)).problem
        assert other.asked == []


class RebindingResolver(AbstractResolver):
    """A name server that returns a foreign address first, and the tester's own when it is asked again."""

    def __init__(self) -> None:
        self.answers = chain(["1.1.1.1"], repeat("127.0.0.1"))
        self.returned: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Answer differently each time."""
        self.returned.append(next(self.answers))
        return [ResolveResult(hostname=host, host=self.returned[-1], port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing to close."""


async def test_a_name_that_resolves_differently_later_is_no_way_in() -> None:
    """The address is checked again at the moment of connecting, and is not resolved after that."""
    async with file_server() as secret, file_server() as gateway:
        resolver = RebindingResolver()
        fetcher = FileFetcher(gateway.url, resolver=resolver)
        try:
            file = await fetcher.fetch(f"http://store.example:{secret.port}/x.png", timeout_s=10, max_bytes=1000)
        finally:
            await fetcher.close()
        assert resolver.returned[:2] == ["1.1.1.1", "127.0.0.1"]
        assert "the tester itself" in file.problem
        assert secret.asked == []


async def test_a_store_elsewhere_is_asked_without_our_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """An absolute address, here behind a proxy, since a test has no elsewhere: no token, no cookie, no name of ours."""
    async with (
        file_server(a=(200, {"Set-Cookie": "id=1; Domain=store.example"}, PICTURE)) as proxy,
        file_server() as gateway,
    ):
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for _ in range(2):
            file = await fetch(gateway, "http://store.example/a", token="secret")
            assert (file.problem, file.body) == ("", PICTURE)
        for path, headers in proxy.asked:
            assert path == "http://store.example/a"
            assert not {"Authorization", "Cookie", "Referer"} & set(headers)


@pytest.mark.parametrize(
    ("url", "problem"),
    [("ftp://127.0.0.1/x", "not an http(s) address"), ("file:///etc/passwd", "not an http(s) address"),
     ("gopher://x/", "not an http(s) address"), ("javascript:1", "not an http(s) address"),
     ("data:image/png;base64,AAAA", "not an http(s) address"), ("http://[::1", "GET failed"),
     ("http://a b/", "not an http(s) address"), ("/a b HTTP/1.1", "not an http(s) address"),
     ("http://x\\@127.0.0.1/", "GET failed"), ("http://127.0.0.1:99999/", "GET failed"),
     ("http://nowhere.invalid/x", "GET failed"), ("http://127.0.0.1./", "GET failed"),
     ("http://ⓛocalhost/", "GET failed"), ("/x\0y", "not an http(s) address")],
)  # fmt: skip
async def test_what_is_no_address_is_reported_as_none(url: str, problem: str) -> None:
    """Odd schemes, odd hosts and odd characters end in a sentence, and in no request."""
    async with file_server() as gateway:
        file = await fetch(gateway, url)
        assert problem in file.problem
        assert gateway.asked == []


async def test_files_are_read_within_bounds() -> None:
    """Endless and compressed files, redirections without end and errors return no body, and show whose fault it is."""
    bomb = gzip.compress(bytes(10_000_000))
    pages: dict[str, Any] = {
        "endless": (200, {}, b"endless"),
        "bomb": (200, {"Content-Encoding": "gzip"}, bomb),
        "round": (302, {"Location": "/round"}, b""),
        "gone": (404, {}, b"ErrNotFound"),
        "empty": (200, {}, b""),
    }
    async with file_server(**pages) as gateway:
        files = {name: await fetch(gateway, f"/{name}", max_bytes=100_000) for name in pages}
        assert all(file.body == b"" for file in files.values())
        assert (files["endless"].status, files["endless"].problem) == (200, "larger than 100000 bytes")
        assert (files["bomb"].status, "gzip" in files["bomb"].problem) == (None, True)
        assert files["round"].problem == "too many redirects"
        assert (files["gone"].status, files["gone"].problem) == (404, "GET answered 404")
        assert files["empty"].problem == ""
        assert len([path for path, _ in gateway.asked if path == "/round"]) == 4


@pytest.mark.parametrize(("host", "is_uncertain"), [("127.0.0.1", False), ("nowhere.invalid", True)])
async def test_only_a_refused_connection_proves_a_link_dead(host: str, is_uncertain: bool) -> None:
    """A name that is not file may be the fault of the tester's own DNS."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = FileFetcher(f"http://{host}:{taken.getsockname()[1]}")
        try:
            file = await client.fetch("/a.png", timeout_s=10, max_bytes=1000)
        finally:
            await client.close()
    assert (file.status, file.is_uncertain) == (None, is_uncertain), file.problem


async def test_a_link_that_takes_too_long_is_not_proven_dead() -> None:
    """The tester's own network may be what is slow."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = FileFetcher(f"http://127.0.0.1:{silent.getsockname()[1]}")
        try:
            file = await client.fetch("/a.png", timeout_s=0.2, max_bytes=1000)
        finally:
            await client.close()
    assert file.is_uncertain, file.problem
