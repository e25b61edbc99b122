"""The simulated live runners over real sockets: what the contract says of discovery, apps, sessions and payment."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from jobtester.simulator.job_log import LoggedRunnerRequest
from jobtester.simulator.live_runner.runner import LiveRunner
from jobtester.simulator.live_runner.signer import PAYER
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import AppKind, GatewaySpec, OrchestratorSpec, RunnerSpec, Scenario
from tests.harness.waiting import until

ADDRESS = "0xa11ce00000000000000000000000000000000001"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Answer with only the word apple"}], "max_tokens": 16}
FAST = (0.0, 0.0)
PAYER_HEADERS = {"Livepeer-Payer-Address": PAYER}
SESSIONS = {"mode": "persistent", "app_kind": "echo", "app": "x/echo"}


class Client:
    """A client of one simulated orchestrator that verifies no certificate and follows no redirect."""

    def __init__(self, network: Network, session: aiohttp.ClientSession) -> None:
        """Call the first orchestrator of the network."""
        self.network, self.session = network, session

    @property
    def uri(self) -> str:
        """The orchestrator's service URI."""
        return self.network.orchestrators[0].spec.service_uri

    @property
    def runner(self) -> LiveRunner:
        """Its first runner."""
        return self.network.service_ports[0].runners[0]

    @property
    def log(self) -> list[LoggedRunnerRequest]:
        """The requests that the simulator has logged."""
        return self.network.runner_requests

    async def send(self, method: str, url: str, **options: Any) -> tuple[int, bytes, Any]:
        """Return status, body and headers of a response; `url` may leave out the service URI."""
        full_url = url if "://" in url else self.uri + url
        async with self.session.request(method, full_url, ssl=False, allow_redirects=False, **options) as response:
            return response.status, await response.read(), response.headers

    async def discover(self) -> list[dict[str, Any]]:
        """Return the runners that discovery lists."""
        status, body, _ = await self.send("GET", "/discovery")
        assert status == 200
        (entry,) = json.loads(body)
        assert entry["address"] == self.uri
        runners: list[dict[str, Any]] = entry.get("runners", [])
        return runners

    async def app_url(self, index: int = 0) -> str:
        """Return the URL of a listed runner."""
        return str((await self.discover())[index]["url"])

    async def reserve(self, **options: Any) -> dict[str, str]:
        """Reserve a session of the only runner."""
        status, body, _ = await self.send("POST", await self.app_url(), **options)
        assert status == 200, body
        reply: dict[str, str] = json.loads(body)
        return reply

    async def pay(self, challenge: dict[str, str], kind: str = "fixed", **values: Any) -> tuple[int, dict[str, Any]]:
        """Ask the signer for a payment."""
        body = {"orchestrator": challenge["payment_params"], "type": kind, "ManifestID": challenge["manifest_id"]}
        status, reply, _ = await self.send(
            "POST", f"{self.network.signer.url}/generate-live-payment", json={**body, **values}
        )
        return status, json.loads(reply)

    async def challenge(self, method: str, url: str) -> dict[str, str]:
        """Send a request that is not paid for and return the challenge."""
        status, body, _ = await self.send(method, url, headers=PAYER_HEADERS)
        assert status == 402
        reply: dict[str, str] = json.loads(body)
        return reply


def payment_headers(payment: dict[str, Any]) -> dict[str, str]:
    """Return the headers that pay for a request."""
    return {**PAYER_HEADERS, "Livepeer-Payment": payment["payment"], "Livepeer-Segment": payment["segCreds"]}


def spec(app: str = "x/hello", **values: Any) -> RunnerSpec:
    """Make a runner that responds at once."""
    return RunnerSpec(**{"app": app, "latency_s": FAST, **values})


@asynccontextmanager
async def running(*runners: RunnerSpec, uri: str = "https://127.0.0.1:0", **node: Any) -> AsyncIterator[Client]:
    """Run one orchestrator with these runners."""
    orchestrator = OrchestratorSpec(ADDRESS, service_uri=uri, runners=runners, **node)
    scenario = Scenario("runners", 3, (GatewaySpec("g", mode="stock"),), (orchestrator,))
    async with Network(scenario) as network, aiohttp.ClientSession() as session:
        yield Client(network, session)


def assert_refused(reply: tuple[int, bytes, Any], status: int, text: str) -> None:
    """Assert that it is the orchestrator's own error, in its exact form."""
    assert (reply[0], reply[1]) == (status, f"{text}\n".encode())
    assert reply[2]["Content-Type"] == "text/plain; charset=utf-8"
    assert reply[2]["X-Content-Type-Options"] == "nosniff"


# 2.1 Discovery


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_discovery_has_the_shape_of_the_contract(scheme: str) -> None:
    """With and without TLS; every key where it is known."""
    runner = spec(version="1.2.0", capacity=4, price=123456, gpu="NVIDIA GeForce RTX 4090", metadata='{"a":1}')
    async with running(runner, uri=f"{scheme}://127.0.0.1:0") as client:
        (entry,) = await client.discover()
        runner_id = client.runner.runner_id
        assert entry == {
            "url": f"{client.uri}/apps/{runner_id}/app",
            "gpu": {"id": entry["gpu"]["id"], "name": "NVIDIA GeForce RTX 4090", "vram_mb": 24564},
            "app": "x/hello",
            "version": "1.2.0",
            "metadata": '{"a":1}',
            "mode": "single-shot",
            "capacity": 4,
            "capacity_used": 0,
            "capacity_available": 4,
            "price_info": {"price": 123456, "currency": "wei", "unit": "fixed"},
        }


async def test_discovery_leaves_out_what_is_not_known_and_names_sessions_and_labels() -> None:
    """No gpu, version, metadata or price; a session URL ends in /session; a label replaces the id."""
    async with running(spec(path_kind="label"), spec(**SESSIONS)) as client:
        entries = {entry["app"]: entry for entry in await client.discover()}
        assert set(entries["x/hello"]) == {
            "url", "app", "mode", "capacity", "capacity_used", "capacity_available",
        }  # fmt: skip
        assert entries["x/hello"]["url"] == f"{client.uri}/apps/x-hello/app"
        assert entries["x/echo"]["url"].endswith("/session")
        assert (await client.send("GET", f"{entries['x/hello']['url']}/"))[0] == 200


async def test_without_a_healthy_runner_the_key_is_missing() -> None:
    """No runner, or none healthy."""
    async with running(live_runners=True) as client:
        assert json.loads((await client.send("GET", "/discovery"))[1]) == [{"address": client.uri}]
    async with running(spec()) as client:
        client.runner.set_healthy(False)
        assert json.loads((await client.send("GET", "/discovery"))[1]) == [{"address": client.uri}]


@pytest.mark.parametrize(
    ("version", "text"), [("0.9.1", "live runners are not supported"), ("0.8.6", "404 page not found")]
)
async def test_an_orchestrator_without_live_runners_says_so(version: str, text: str) -> None:
    """One before 0.9 has no such route at all."""
    async with running(version=version) as client:
        assert_refused(await client.send("GET", "/discovery"), 404, text)


async def test_discovery_is_in_random_order() -> None:
    """Runners come in any order."""
    async with running(*(spec(f"x/{number}") for number in range(5))) as client:
        orders = {tuple(entry["app"] for entry in await client.discover()) for _ in range(20)}
        assert len(orders) > 1


@pytest.mark.parametrize(
    ("fault", "is_wrong"),
    [
        ("discovery_html", lambda body: body.startswith(b"<!doctype html>")),
        ("discovery_wrong_types", lambda body: json.loads(body)[0]["runners"][0]["url"] == 7),
        ("discovery_many", lambda body: len({runner["url"] for runner in json.loads(body)[0]["runners"]}) == 10_000),
        ("discovery_huge", lambda body: len(body) > 100 * 2**20 - 65_536),
        ("discovery_huge_price", lambda body: json.loads(body)[0]["runners"][0]["price_info"]["price"] > 2**64),
        ("discovery_fails", lambda body: body == b"Internal Server Error\n"),
    ],
)
async def test_discovery_faults(fault: str, is_wrong: Any) -> None:
    """Each one spoils the list in its own way."""
    async with running(spec(), fault=fault) as client:
        assert is_wrong((await client.send("GET", "/discovery"))[1])


async def test_a_slow_discovery_never_ends() -> None:
    """Its bytes come one by one."""
    async with (
        running(spec(), fault="discovery_slow") as client,
        client.session.get(f"{client.uri}/discovery", ssl=False) as response,
    ):
        assert (await response.content.readexactly(14))[-1:] == b"x"
        assert not response.content.at_eof()


# 2.2 Single-shot jobs


async def test_the_bare_url_redirects_to_the_one_with_a_slash() -> None:
    """A 307, by which a POST may not survive."""
    async with running(spec()) as client:
        url = await client.app_url()
        status, _, headers = await client.send("POST", f"{url}?a=1")
        assert (status, headers["Location"]) == (307, url.removeprefix(client.uri) + "/?a=1")
        assert client.log == []


async def test_hello_world() -> None:
    """GET and POST."""
    async with running(spec()) as client:
        url = await client.app_url()
        assert json.loads((await client.send("GET", f"{url}/"))[1]) == {"message": "Hello, world!"}
        assert json.loads((await client.send("POST", f"{url}/hi", json={"name": "Ada"}))[1]) == {
            "message": "Hello, Ada!"
        }
        assert [(entry.outcome, entry.method, entry.path) for entry in client.log] == [
            ("served", "GET", "/"),
            ("served", "POST", "/hi"),
        ]


async def test_chat_whole_and_streamed_chunk_by_chunk() -> None:
    """Server-sent events are passed through as they come."""
    async with running(spec("x/chat", app_kind="openai-chat")) as client:
        url = f"{await client.app_url()}/v1/chat/completions"
        _, body, _ = await client.send("POST", url, json=CHAT)
        assert json.loads(body)["choices"][0]["message"]["content"] == "apple"
        async with client.session.post(url, json={**CHAT, "stream": True}, ssl=False) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            first = await response.content.readuntil(b"\n\n")
            assert client.runner.in_flight == 1
            rest = await response.content.read()
        assert first.startswith(b"data: {")
        assert rest.endswith(b"data: [DONE]\n\n")
        assert (await client.send("POST", url.replace("/chat/", "/no/"), json=CHAT))[0] == 404


async def test_embeddings() -> None:
    """In the shape of OpenAI."""
    async with running(spec("x/embed", app_kind="openai-embeddings")) as client:
        _, body, _ = await client.send(
            "POST", f"{await client.app_url()}/v1/embeddings", json={"model": "m", "input": ["a", "b"]}
        )
        assert [entry["index"] for entry in json.loads(body)["data"]] == [0, 1]


async def test_text_to_image_names_a_file_on_the_same_host() -> None:
    """In the shape of fal; the file is served free of charge and takes no slot."""
    async with running(spec("x/flux", app_kind="fal-text-to-image")) as client:
        request = {"prompt": "a bear", "image_size": {"width": 64, "height": 32}, "seed": 7}
        _, body, _ = await client.send("POST", f"{await client.app_url()}/", json=request)
        answer = json.loads(body)
        (image,) = answer["images"]
        assert (image["width"], image["height"], answer["seed"]) == (64, 32, 7)
        assert image["url"].startswith(f"{client.uri}/files/")
        assert (await client.send("GET", image["url"]))[1].startswith(b"\x89PNG")
        assert (await client.send("POST", f"{await client.app_url()}/", json={}))[0] == 422


async def test_the_app_sees_headers_of_the_orchestrator_and_the_client_does_not() -> None:
    """Method, query and body pass through."""
    async with running(spec("x/echo", app_kind="echo")) as client:
        url = await client.app_url()
        _, body, headers = await client.send("PUT", f"{url}/request?a=b")
        seen = json.loads(body)
        assert (seen["method"], seen["query"]) == ("PUT", "a=b")
        assert sorted(seen["headers"]) == [
            "Livepeer-Runner-Route", "Livepeer-Runner-Session-Id", "Livepeer-Session-Control", "Livepeer-Session-Token",
        ]  # fmt: skip
        assert not [name for name in headers if name.lower().startswith("livepeer")]
        assert (await client.send("POST", f"{url}/echo", data=b"\x00\x01"))[1] == b"\x00\x01"


async def test_websockets_pass_through() -> None:
    """Message by message."""
    async with (
        running(spec("x/echo", app_kind="echo")) as client,
        client.session.ws_connect(f"{await client.app_url()}/ws", ssl=False) as socket,
    ):
        await socket.send_str("one")
        assert await socket.receive_str() == "one"


async def test_a_slot_is_taken_per_request_and_returned_when_the_client_hangs_up() -> None:
    """Discovery shows it, a second request is refused meanwhile, and the log knows that the client has gone."""
    async with running(spec(fault="runner_hangs")) as client:
        url = await client.app_url()
        flying = asyncio.create_task(client.send("GET", f"{url}/", headers={"X-Request-ID": "r1"}))
        await until(lambda: client.runner.in_flight == 1)
        (entry,) = await client.discover()
        assert (entry["capacity_used"], entry["capacity_available"]) == (1, 0)
        assert_refused(await client.send("GET", f"{url}/"), 503, "no capacity available for runner")
        flying.cancel()
        await until(lambda: client.runner.in_flight == 0)
        await until(lambda: len(client.log) == 2)
        assert [(row.outcome, row.status, row.request_id) for row in client.log] == [
            ("refused", 503, ""),
            ("disconnected", None, "r1"),
        ]


# 2.3 Persistent jobs


@pytest.mark.parametrize("path_kind", ["id", "proxied"])
async def test_a_session_is_reserved_used_and_stopped_twice(path_kind: str) -> None:
    """Calls go to its app URL; afterwards both of its URLs are gone and the slot is free."""
    async with running(spec(**SESSIONS, path_kind=path_kind)) as client:
        session = await client.reserve()
        assert session["control_url"] == f"{await client.app_url()}/{session['session_id']}"
        if path_kind == "proxied":
            assert len(session["app_url"].removeprefix(f"{client.uri}/run/")) == 26
        else:
            assert session["app_url"] == f"{session['control_url']}/app"
        assert (await client.send("POST", f"{session['app_url']}/echo", data=b"x"))[1] == b"x"
        for _ in range(2):
            assert (await client.send("POST", f"{session['control_url']}/stop"))[:2] == (204, b"")
        gone = await client.send("POST", f"{session['app_url']}/echo", data=b"x")
        text = "live runner proxy not found" if path_kind == "proxied" else "runner session not found"
        assert_refused(gone, 404, text)
        assert client.runner.session_counts == {"opened": 1, "stopped": 1, "lost": 0, "lapsed": 0}
        assert {row.session_id for row in client.log[:4]} == {session["session_id"]}
        assert [row.kind for row in client.log] == ["reserve", "call", "stop", "stop", "call"]


async def test_a_session_that_is_not_stopped_keeps_its_slot() -> None:
    """It is counted, and the next reservation is refused."""
    async with running(spec(**SESSIONS)) as client:
        session = await client.reserve()
        assert_refused(await client.send("POST", await client.app_url()), 503, "no capacity available for runner")
        status, body, _ = await client.send("GET", f"{client.network.control_url}/runners")
        assert status == 200
        assert json.loads(body)[0]["runners"][0]["open_sessions"] == [session["session_id"]]


async def test_a_restart_of_the_orchestrator_ends_its_sessions() -> None:
    """The slot is free again."""
    async with running(spec(**SESSIONS)) as client:
        await client.reserve()
        client.network.orchestrators[0].restart()
        assert client.runner.sessions == {}
        await client.reserve()


# 2.4 Errors


async def test_an_unknown_or_unhealthy_runner_is_not_found() -> None:
    """Whether nobody knows it, or it is hidden, or it is listed though it is gone."""
    async with running(spec()) as client:
        assert_refused(await client.send("GET", "/apps/runner_00/app/"), 404, "runner not found")
        url = await client.app_url()
        client.runner.set_healthy(False)
        assert_refused(await client.send("GET", f"{url}/"), 404, "runner not found")
        client.runner.set_healthy(True)
        assert (await client.send("GET", f"{url}/"))[0] == 200
    async with running(spec(fault="runner_unhealthy"), spec("x/gone", fault="runner_gone")) as client:
        (entry,) = await client.discover()
        assert_refused(await client.send("GET", f"{entry['url']}/"), 404, "runner not found")


async def test_a_health_gap_loses_the_sessions() -> None:
    """Hidden meanwhile, back afterwards, and the session is gone."""
    async with running(spec(**SESSIONS)) as client:
        session = await client.reserve()
        client.runner.set_healthy(False)
        assert await client.discover() == []
        client.runner.set_healthy(True)
        assert len(await client.discover()) == 1
        gone = await client.send("GET", f"{session['app_url']}/request")
        assert_refused(gone, 404, "runner session not found")
        assert client.runner.session_counts["lost"] == 1
        assert (await client.send("POST", f"{session['control_url']}/stop"))[0] == 204


async def test_health_gaps_come_by_themselves() -> None:
    """After the first number of seconds, for the second, again and again."""
    async with running(spec(**SESSIONS, health_gap=(0.3, 0.3))) as client:
        session = client.runner.open_session("session_00000001")
        await until(lambda: not client.runner.is_healthy())
        assert session.session_id not in client.runner.sessions
        await until(lambda: client.runner.is_healthy())


@pytest.mark.parametrize(
    ("values", "method", "path", "status", "text"),
    [
        ({}, "POST", "session", 400, "only persistent runners have sessions"),
        (SESSIONS, "POST", "app/", 400, "runner is not single-shot"),
        (SESSIONS, "POST", "session/session_00/stop", 404, "runner session not found"),
        (SESSIONS, "POST", "session/session_00/payment", 404, "runner session not found"),
        (SESSIONS, "GET", "session/session_00/app/x", 404, "runner session not found"),
        ({"fault": "runner_busy"}, "GET", "app/", 503, "no capacity available for runner"),
        ({"fault": "runner_down"}, "GET", "app/", 502, "dial tcp 127.0.0.1:5000: connect: connection refused"),
        (
            {"fault": "runner_price_unavailable", "price": 5}, "GET", "app/", 503,
            "live runner price unavailable: no price feed",
        ),
    ],
)  # fmt: skip
async def test_errors_of_the_orchestrator(
    values: dict[str, Any], method: str, path: str, status: int, text: str
) -> None:
    """Each with its exact text and headers, logged as the orchestrator's."""
    async with running(spec(**values)) as client:
        assert_refused(await client.send(method, f"/apps/{client.runner.runner_id}/{path}"), status, text)
        (entry,) = client.log
        assert (entry.outcome, entry.status, entry.error, entry.paid_wei) == ("refused", status, text, 0)


async def test_a_reservation_is_a_post() -> None:
    """A GET is answered 405."""
    async with running(spec(**SESSIONS)) as client:
        assert (await client.send("GET", await client.app_url()))[0] == 405


async def test_an_unknown_proxy_is_not_found() -> None:
    """Whatever its letters are."""
    async with running(spec(**SESSIONS)) as client:
        assert_refused(await client.send("GET", f"/run/{'a' * 26}/x"), 404, "live runner proxy not found")


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ("runner_says_busy", 503, b"no capacity available for runner"),
        ("runner_says_missing", 404, b"runner not found"),
        ("runner_fails", 500, b'{"detail": "Internal Server Error"}'),
    ],
)
async def test_an_error_of_the_app_differs_from_that_of_the_orchestrator(fault: str, status: int, text: bytes) -> None:
    """By its text: there is no line feed at its end."""
    async with running(spec(fault=fault)) as client:
        reply = await client.send("GET", f"{await client.app_url()}/")
        assert reply[:2] == (status, text)
        assert "X-Content-Type-Options" not in reply[2]
        assert [(row.outcome, row.fault) for row in client.log] == [("app_error", fault)]


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ("session_conflict", 409, b'{"error": "runner already has an active session"}'),
        ("session_lost", 404, b"runner session not found\n"),
        ("runner_down", 502, b"dial tcp 127.0.0.1:5000: connect: connection refused\n"),
    ],
)
async def test_a_reservation_does_not_mean_that_the_app_responds(fault: str, status: int, text: bytes) -> None:
    """The reservation succeeds and the call fails."""
    async with running(spec(**SESSIONS, fault=fault)) as client:
        session = await client.reserve()
        assert (await client.send("GET", f"{session['app_url']}/request"))[:2] == (status, text)


@pytest.mark.parametrize(
    ("fault", "prefix"),
    [("runner_other_host", "https://elsewhere.sim.example:8935/"), ("runner_other_port", "https://127.0.0.1:1/")],
)
async def test_an_advertised_url_can_point_elsewhere(fault: str, prefix: str) -> None:
    """To another host, or another port of the same one."""
    async with running(spec(fault=fault)) as client:
        assert (await client.app_url()).startswith(prefix)


async def test_an_app_can_redirect_to_another_host() -> None:
    """With a 307."""
    async with running(spec(fault="runner_redirects")) as client:
        status, _, headers = await client.send("POST", f"{await client.app_url()}/")
        assert (status, headers["Location"]) == (307, "https://elsewhere.sim.example:8935/")


@pytest.mark.parametrize("app_kind", ["hello-world", "openai-chat", "openai-embeddings", "fal-text-to-image", "echo"])
async def test_a_wrong_answer_is_a_200(app_kind: AppKind) -> None:
    """Its content differs from that of a good one."""
    paths = {"openai-chat": "v1/chat/completions", "openai-embeddings": "v1/embeddings"}
    request = {**CHAT, "input": "a", "prompt": "a bear", "image_size": "square"}
    async with running(spec(app_kind=app_kind, fault="runner_wrong")) as client:
        url = f"{await client.app_url()}/{paths.get(app_kind, '')}"
        status, body, _ = await client.send("POST", url, json=request)
        assert status == 200
        if app_kind == "fal-text-to-image":
            body = (await client.send("GET", json.loads(body)["images"][0]["url"]))[1]
        expected = {
            "hello-world": b"Goodbye.", "openai-chat": b"green elephants", "openai-embeddings": b'"data": []',
            "fal-text-to-image": b"<html>", "echo": b"something else",
        }  # fmt: skip
        assert expected[app_kind] in body
        assert [(row.outcome, row.fault) for row in client.log] == [("served", "runner_wrong")]


async def test_a_connection_can_break_in_the_body() -> None:
    """The log has it as broken."""
    async with running(spec(fault="runner_resets")) as client:
        url = await client.app_url()
        with pytest.raises(aiohttp.ClientError):
            await client.send("GET", f"{url}/")
        assert [row.outcome for row in client.log] == ["broken"]


async def test_a_body_can_be_endless() -> None:
    """Until the client hangs up, which returns the slot."""
    async with running(spec(fault="runner_endless")) as client:
        async with client.session.get(f"{await client.app_url()}/", ssl=False) as response:
            assert len(await response.content.readexactly(200_000)) == 200_000
            response.close()
        await until(lambda: client.runner.in_flight == 0)


async def test_a_fault_of_the_orchestrator_applies_to_all_its_runners() -> None:
    """Except to those with a fault of their own."""
    async with running(spec(), spec("x/other", fault="runner_fails"), fault="runner_down") as client:
        statuses = {
            entry["app"]: (await client.send("GET", f"{entry['url']}/"))[0] for entry in await client.discover()
        }
        assert statuses == {"x/hello": 502, "x/other": 500}


async def test_an_orchestrator_that_is_down_refuses_connections_and_returns() -> None:
    """As every other orchestrator does."""
    async with running(spec()) as client:
        url = await client.app_url()
        client.network.orchestrators[0].restart(down=True)
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.send("GET", f"{url}/")
        client.network.orchestrators[0].restart()
        assert (await client.send("GET", f"{url}/"))[0] == 200


async def test_the_certificate_is_self_signed() -> None:
    """A client that verifies it does not get through."""
    async with running(spec()) as client:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await client.session.get(f"{client.uri}/discovery", ssl=ssl.create_default_context())


# 2.5 Payment


async def test_a_fixed_price_is_paid_once() -> None:
    """Payer, challenge, signature, the same request again; every blob is opaque."""
    async with running(spec(price=123456)) as client:
        url = f"{await client.app_url()}/"
        _, body, _ = await client.send("POST", f"{client.network.signer.url}/sign-orchestrator-info", json={})
        assert json.loads(body)["address"] == PAYER
        challenge = await client.challenge("GET", url)
        assert set(challenge) == {"payment_params", "orchestrator", "manifest_id", "payment_url"}
        assert challenge["orchestrator"] == client.uri
        status, payment = await client.pay(challenge, maxPrice={"price": 123456, "currency": "wei", "unit": "fixed"})
        assert (status, set(payment)) == (200, {"payment", "segCreds", "state"})
        headers = payment_headers(payment)
        assert (await client.send("GET", url, headers=headers))[0] == 200
        assert_refused(await client.send("GET", url, headers=headers), 409, "session already exists")
        assert [(row.outcome, row.status, row.paid_wei) for row in client.log] == [
            ("challenged", 402, 0),
            ("served", 200, 123456),
            ("refused", 409, 0),
        ]
        assert {row.manifest_id for row in client.log[:2]} == {challenge["manifest_id"]}


async def test_payments_that_are_mixed_up_are_refused() -> None:
    """Without credentials, with those of another manifest, for another session."""
    async with running(spec(**SESSIONS, price=5, capacity=2)) as client:
        url = await client.app_url()
        first, second = [await client.challenge("POST", url) for _ in range(2)]
        (_, paid), (_, other) = [await client.pay(challenge) for challenge in (first, second)]
        headers = payment_headers(paid)
        without = {name: value for name, value in headers.items() if name != "Livepeer-Segment"}
        assert_refused(await client.send("POST", url, headers=without), 403, "missing auth token")
        mixed = {**headers, "Livepeer-Segment": other["segCreds"]}
        assert_refused(await client.send("POST", url, headers=mixed), 403, "mismatched manifest and auth token")
        session = await client.reserve(headers=headers)
        assert session["session_id"] == first["manifest_id"]
        reply = await client.send("POST", first["payment_url"], headers=payment_headers(other))
        assert_refused(reply, 403, "mismatched session and payment manifest")
        _, again = await client.pay(first)
        reply = await client.send("POST", f"{session['control_url']}/payment", headers=payment_headers(again))
        assert_refused(reply, 409, "fixed-price live runner sessions do not accept follow-up payments")
        assert sum(row.paid_wei for row in client.log) == 5


async def test_a_payment_that_the_runner_cannot_use_is_challenged_again() -> None:
    """Of another payer, or when the runner asks again and again."""
    async with running(spec(price=5)) as client:
        url = f"{await client.app_url()}/"
        _, payment = await client.pay(await client.challenge("GET", url))
        headers = payment_headers(payment)
        assert (await client.send("GET", url, headers={**headers, "Livepeer-Payer-Address": "0x1"}))[0] == 402
        client.runner.change(fault="runner_repeats_402")
        assert (await client.send("GET", url, headers=headers))[0] == 402
        assert sum(row.paid_wei for row in client.log) == 0


async def test_a_session_by_time_is_paid_for_until_it_is_stopped() -> None:
    """Payments follow by the state of the last one, to both payment URLs."""
    async with running(spec(**SESSIONS, price=1000, unit="seconds", payment_interval_s=1.0)) as client:
        challenge = await client.challenge("POST", await client.app_url())
        _, payment = await client.pay(challenge, "live")
        session = await client.reserve(headers=payment_headers(payment))
        assert challenge["payment_url"] == f"{session['control_url']}/payment"
        payments = []

        async def is_paid_again() -> bool:
            status, reply = await client.pay(challenge, "live", state=payment["state"])
            if status == 200:
                payments.append(reply)
            return status == 200

        while not await is_paid_again():  # 482 as long as there is too little to pay for
            pass
        status, _, _ = await client.send("POST", challenge["payment_url"], headers=payment_headers(payments[0]))
        assert status == 200
        assert (await client.send("POST", f"{session['control_url']}/stop"))[0] == 204
        assert [row.paid_wei > 0 for row in client.log] == [False, True, True, False]
        assert client.log[1].paid_wei == 2000


async def test_a_session_by_time_ends_when_payments_stop() -> None:
    """Its slot is free, and it is counted as lapsed."""
    values: dict[str, Any] = {"price": 1000, "unit": "720p-pixel-seconds", "payment_interval_s": 0.05}
    async with running(spec(**SESSIONS, **values)) as client:
        _, payment = await client.pay(await client.challenge("POST", await client.app_url()), "lv2v")
        session = await client.reserve(headers=payment_headers(payment))
        await until(lambda: client.runner.session_counts["lapsed"] == 1)
        reply = await client.send("GET", f"{session['app_url']}/request")
        assert_refused(reply, 404, "runner session not found")


async def test_a_request_by_time_is_cut_off_when_payments_stop() -> None:
    """The connection breaks; it is a POST, because aiohttp's client would send a GET again."""
    values: dict[str, Any] = {"price": 1000, "unit": "seconds", "payment_interval_s": 0.05, "fault": "runner_hangs"}
    async with running(spec(**values)) as client:
        url = f"{await client.app_url()}/"
        _, payment = await client.pay(await client.challenge("POST", url), "live")
        with pytest.raises(aiohttp.ClientError):
            await client.send("POST", url, headers=payment_headers(payment))
        assert [(row.outcome, row.status) for row in client.log] == [("challenged", 402), ("broken", None)]
        assert client.runner.in_flight == 0


async def test_signer_codes() -> None:
    """400 for a bad request, 480 for old parameters, 481 above a limit, 482 when nothing is due yet."""
    async with running(spec(**SESSIONS, price=1000, unit="seconds")) as client:
        url = f"{client.network.signer.url}/generate-live-payment"
        for body in ("no", "[]", "{}", '{"orchestrator":"bm8="}'):
            assert (await client.send("POST", url, data=body))[0] == 400
        challenge = await client.challenge("POST", await client.app_url())
        assert (await client.pay(challenge, "other"))[0] == 400
        assert (await client.pay(challenge, "fixed"))[0] == 400
        assert (await client.pay({**challenge, "manifest_id": "m"}, "live"))[0] == 400
        assert (await client.pay(challenge, "live", state={"state": "?"}))[0] == 400
        assert (await client.pay(challenge, "live", maxPrice={"price": 999}))[0] == 481
        client.network.signer.max_price = 999
        assert (await client.pay(challenge, "live"))[0] == 481
        client.network.signer.max_price = 0
        status, payment = await client.pay(challenge, "live")
        assert status == 200
        assert (await client.pay(challenge, "live", state=payment["state"]))[0] == 482
        client.network.signer.fail_next(480)
        assert (await client.pay(challenge, "live"))[0] == 480
        assert (await client.pay(challenge, "live"))[0] == 200


# What is served, seen from outside


async def test_the_control_port_shows_and_changes_runners() -> None:
    """The log from a number on, the state of each runner, its fault and health, and the signer's faults."""
    async with running(spec(price=5)) as client:
        control = client.network.control_url
        challenge = await client.challenge("GET", f"{await client.app_url()}/")
        log = json.loads((await client.send("GET", f"{control}/runners/log"))[1])
        assert [(row["seq"], row["outcome"], row["app"], row["address"]) for row in log] == [
            (1, "challenged", "x/hello", ADDRESS)
        ]
        assert json.loads((await client.send("GET", f"{control}/runners/log?since=1"))[1]) == []
        url = f"{control}/runners/{client.runner.runner_id}"
        assert (await client.send("PATCH", url, json={"fault": "runner_down", "price": 0}))[0] == 200
        assert (await client.send("GET", f"{await client.app_url()}/"))[0] == 502
        assert (await client.send("PATCH", url, json={"healthy": False}))[0] == 200
        assert await client.discover() == []
        assert (await client.send("PATCH", url, json={"fault": "no such fault"}))[0] == 400
        assert (await client.send("PATCH", url, json={"app": "x"}))[0] == 400
        assert (await client.send("PATCH", f"{control}/runners/other", json={}))[0] == 404
        assert (await client.send("PUT", f"{control}/signer/faults", json={"status": 480, "count": 1}))[0] == 200
        assert (await client.pay(challenge))[0] == 480
        assert (await client.send("PUT", f"{control}/signer/faults", json={}))[0] == 400


async def test_the_built_in_scenario_runs() -> None:
    """Every orchestrator that is up serves its list, but for the faults of discovery."""
    async with Network(Scenario.load("live-runner")) as network, aiohttp.ClientSession() as session:
        client = Client(network, session)
        listed: dict[str, int] = {}
        for port in network.service_ports:
            node = port.node.spec
            if node.fault not in ("discovery_slow", "discovery_huge"):
                _, body, _ = await client.send("GET", f"{node.service_uri}/discovery")
                listed[node.fault or (node.runners[0].fault if node.runners else "none")] = body.count(b'"url"')
        assert listed["runner_down"] == 1
        assert listed["runner_unhealthy"] == listed["none"] == 0
        assert listed["discovery_many"] == 10_000
        faults = {runner.fault for node in network.scenario.orchestrators for runner in node.runners}
        assert len(faults - {""}) == 20
