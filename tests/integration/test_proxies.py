"""The environment's proxies are used, except for what NO_PROXY names."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from jobtester.domain.exchanges import Ending, OutgoingRequest
from jobtester.gateway.client import GatewayClient
from jobtester.http import Proxies
from jobtester.leaderboard.client import LeaderboardClient as Leaderboard


class Proxy:
    """A proxy for plain HTTP that responds to everything itself and records the requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Record method, whole URL and credentials."""
        await request.read()
        self.asked.append((request.method, request.path, request.headers.get("Proxy-Authorization", "")))
        return web.json_response({"regions": [{"id": "FRA", "type": "ai"}]})


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """Run a proxy on loopback."""
    running = Proxy()
    runner = web.ServerRunner(web.Server(running.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    running.url = f"http://user:word@127.0.0.1:{runner.addresses[0][1]}"
    yield running
    await runner.cleanup()


async def test_jobs_and_stats_go_through_the_proxy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its credentials; the addresses behind it need not even resolve here."""
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    gateway = GatewayClient("g", "http://gateway.test:8935", "http://gateway.test:7935")
    await gateway.open()
    try:
        sent = await gateway.send(OutgoingRequest("/llm", b"{}", job_id="1", timeout_s=60, max_bytes=1000))
        status, _ = await gateway.get_cli("/metrics", timeout_s=60)
        assert await gateway.is_alive()
    finally:
        await gateway.close()
    async with Leaderboard("http://board.test", "secret") as leaderboard:
        regions = await leaderboard.get_regions()
    assert sent.ending is Ending.ANSWERED
    assert status == 200
    assert regions == {"ai": {"FRA"}}
    assert {path for _, path, _ in proxy.asked} == {"/llm", "/metrics", "/healthz", "/api/regions"}
    assert {credentials for *_, credentials in proxy.asked} == {"Basic " + base64.b64encode(b"user:word").decode()}


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("http://gateway:8935", False),
        ("http://node.inside.example:8935", False),
        ("http://other:8935", True),
        ("http://alone:8935", False),
        ("http://alone:8936", True),
        ("https://other:8935", False),
    ],
)
def test_what_no_proxy_names_is_reached_directly(url: str, proxied: bool) -> None:
    """By host, by domain, by host and port; and a scheme without a proxy of its own has none."""
    proxies = Proxies({"http": "http://proxy:3128", "no": "gateway, .inside.example, alone:8935"})
    assert bool(proxies.request_arguments(url)) is proxied
