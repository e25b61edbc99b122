"""Who may use which route: with a read token, without one, and through a trusted proxy."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from pathlib import Path
from typing import Any, cast

import aiohttp
import orjson
import pytest

from jobtester.configuration import Configuration
from jobtester.errors import ConfigError
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec
from jobtester.web.access import ROUTES
from jobtester.web.api import api as api_routes
from jobtester.web.app import build_app
from jobtester.web.context import WebContext
from tests.harness.simulated import SimulatedTester, simulated_tester

TOKEN = "a-token-for-readers-only"
SCENARIO = generate(seed=1, orchestrators=1, pipelines=("llm",), gateways=(GatewaySpec("one"),))

# Every route for which no reader's token is needed, and what it answers to a stranger. All others answer 401.
OPEN = {
    ("GET", "/healthz"): {200},
    ("GET", "/readyz"): {200, 503},
    ("GET", "/metrics"): {200},
    ("GET", "/orchestrators"): {200},
    ("GET", "/orchestrators/{gateway}"): {404},
    ("GET", "/static"): {403, 404},
    ("POST", "/webhooks/gateway-events"): {204},
    ("POST", "/webhooks/test-results"): {403},
    ("POST", "/api/post_stats"): {403},
    ("POST", "/api/ticks"): {401},
}


def basic(password: str, user: str = "anybody") -> dict[str, str]:
    """Return the header of basic authentication."""
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


async def status(tester: SimulatedTester, path: str, method: str = "GET", **headers: str) -> int:
    """Return the status of an answer."""
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{tester.daemon.port}{path}"
        async with session.request(method, url, headers=headers, allow_redirects=False) as answer:
            return answer.status


def declared_routes() -> set[tuple[str, str]]:
    """Return every route that the daemon serves, as it is declared."""
    return {
        (route.method, route.resource.canonical)
        for route in build_app(cast(WebContext, None)).router.routes()
        if route.resource is not None and route.method != "HEAD"
    }


async def test_every_route_but_those_that_others_need_asks_for_the_token(tmp_path: Path) -> None:
    """Each declared route is asked for without a token; a new one is for readers unless it is listed as open."""
    server = {"read_token": TOKEN, "results_secret": "key", "admin_token": "admin"}
    async with simulated_tester(SCENARIO, tmp_path, server=server) as tester:
        routes = declared_routes()
        assert OPEN.keys() == ROUTES.keys() <= routes
        for method, path in routes:
            answered = await status(tester, path.replace("{", "").replace("}", ""), method)
            assert answered in OPEN.get((method, path), {401}), (method, path, answered)
        assert await status(tester, "/no-such-route") == 401
        # POST /api/ticks refuses for want of its own token, which the read token is not.
        assert await status(tester, "/api/ticks", "POST", Authorization=f"Bearer {TOKEN}") == 401
        assert await status(tester, "/api/ticks", "POST", Authorization="Bearer admin") == 202


def test_the_document_says_where_a_token_is_needed() -> None:
    """Each route for readers has its 401 and both ways to pass the token; nothing else asks for that token."""
    for path, methods in api_routes.document()["paths"].items():
        for method, operation in methods.items():
            is_for_readers = (method.upper(), path) not in ROUTES
            assert ("401" in operation["responses"]) is (is_for_readers or path == "/api/ticks"), path
            assert ({"reader": []} in operation.get("security", [])) is is_for_readers, path


async def test_the_token_is_taken_as_a_bearer_and_as_a_password(tmp_path: Path) -> None:
    """A browser is asked for a password; wrong tokens, other schemes and nonsense are refused."""
    async with simulated_tester(SCENARIO, tmp_path, server={"read_token": TOKEN}) as tester:
        for path in ("/", "/api/status", "/outbox"):
            assert await status(tester, path, Authorization=f"Bearer {TOKEN}") == 200
            assert await status(tester, path, **basic(TOKEN)) == 200
            assert await status(tester, path, **basic(TOKEN, user="")) == 200
            for wrong in (
                f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", TOKEN, f"Token {TOKEN}", "Basic", "Basic ###",
                basic("")["Authorization"], basic(TOKEN + ":")["Authorization"], "Basic " + b64encode(b"\xff").decode(),
                "Basic " + b64encode(TOKEN.encode()).decode(),
            ):  # fmt: skip
                assert await status(tester, path, Authorization=wrong) == 401, wrong
        async with aiohttp.ClientSession(f"http://127.0.0.1:{tester.daemon.port}") as session:
            async with session.get("/") as page, session.get("/api/status") as document:
                assert page.headers["WWW-Authenticate"] == document.headers["WWW-Authenticate"]
                assert page.headers["WWW-Authenticate"].startswith("Basic ")
                assert (await document.json())["error"].startswith("a token is needed")
            async with session.get("/readyz") as brief, session.get("/readyz", headers=basic(TOKEN)) as whole:
                assert all(check.keys() == {"ok"} for check in (await brief.json())["checks"].values())
                assert any(len(check) > 1 for check in (await whole.json())["checks"].values())


async def test_metrics_have_a_token_of_their_own(tmp_path: Path) -> None:
    """With it they are for Prometheus and for readers; Prometheus may read nothing else."""
    other = "another-token-for-metrics"
    async with simulated_tester(SCENARIO, tmp_path, server={"read_token": TOKEN, "metrics_token": other}) as tester:
        assert await status(tester, "/metrics") == 401
        assert await status(tester, "/metrics", Authorization=f"Bearer {other}") == 200
        assert await status(tester, "/metrics", **basic(other)) == 200
        assert await status(tester, "/metrics", Authorization=f"Bearer {TOKEN}") == 200
        assert await status(tester, "/", Authorization=f"Bearer {other}") == 401


async def test_without_a_token_everybody_may_read(tmp_path: Path) -> None:
    """Also those who send a password that nobody asked for."""
    async with simulated_tester(SCENARIO, tmp_path) as tester:
        for path in ("/", "/api/status", "/metrics", "/outbox"):
            assert await status(tester, path) == 200
            assert await status(tester, path, **basic("whatever")) == 200


@pytest.mark.parametrize(("network", "expected"), [("127.0.0.0/8", 200), ("10.0.0.0/8", 401)])
async def test_a_users_name_is_believed_from_a_trusted_proxy_alone(network: str, expected: int, tmp_path: Path) -> None:
    """From another peer the same header admits nobody, and neither does an empty or a different one."""
    server = {"trusted_proxy": [network], "proxy_user_header": "X-Forwarded-User"}
    async with simulated_tester(SCENARIO, tmp_path, server=server) as tester:
        assert await status(tester, "/", **{"X-Forwarded-User": "ada"}) == expected
        assert await status(tester, "/", **{"x-forwarded-user": "ada"}) == expected
        for headers in ({}, {"X-Forwarded-User": " "}, {"Remote-User": "ada"}, {"X-Forwarded-For": "127.0.0.1"}):
            assert await status(tester, "/", **headers) == 401


@pytest.mark.parametrize(
    ("network", "forwarded", "source"),
    [
        ("127.0.0.0/8", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.0/8", "198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the first was written by the caller
        ("127.0.0.0/8", "203.0.113.9, 127.0.0.2", "203.0.113.9"),  # two proxies in a row
        ("127.0.0.0/8", "nonsense", "127.0.0.1"),
        ("10.0.0.0/8", "203.0.113.9", "127.0.0.1"),
    ],
)
async def test_the_source_of_results_is_who_the_proxy_forwards_for(
    network: str, forwarded: str, source: str, tmp_path: Path
) -> None:
    """The limit per address counts callers and not the proxy; what a caller writes himself is not believed."""
    server = {"trusted_proxy": [network], "results_secret": "key"}
    stat: dict[str, Any] = {
        "orchestrator": "0x" + "a" * 40, "region": "FRA", "success_rate": 1.0, "round_trip_time": 1.0,
        "pipeline": "Text to image", "model": "m",
    }  # fmt: skip
    async with simulated_tester(SCENARIO, tmp_path, server=server) as tester, aiohttp.ClientSession() as session:
        body = orjson.dumps(stat)
        headers = {
            "Authorization": hmac.new(b"key", body, hashlib.sha256).hexdigest(), "X-Forwarded-For": forwarded,
        }  # fmt: skip
        base = f"http://127.0.0.1:{tester.daemon.port}"
        async with session.post(f"{base}/webhooks/test-results", data=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        async with session.get(f"{base}/api/received") as answer:
            assert [item["source"] for item in (await answer.json())["items"]] == [source]


def test_bad_values_are_refused_by_name() -> None:
    """A token that can be guessed, a network that is none, a header that is none, a header without a proxy."""
    content = {"gateways": [{"url": "http://g:1"}], "leaderboard": {"post": False}}
    for server, message in (
        ({"read_token": ""}, "server.read_token: has to have at least 16 characters"),
        ({"metrics_token": "short"}, "server.metrics_token: has to have at least 16 characters"),
        ({"trusted_proxy": ["proxy"]}, "server.trusted_proxy[0]: has to be a network"),
        ({"trusted_proxy": ["10.0.0.1"], "proxy_user_header": "a b"}, "server.proxy_user_header: has to be the name"),
        ({"proxy_user_header": "X-User"}, "server: proxy_user_header needs trusted_proxy"),
    ):
        with pytest.raises(ConfigError) as refused:
            Configuration.from_tables({**content, "server": server}, origin="test")
        assert message in str(refused.value)
        assert "short" not in str(refused.value)
