"""The simulated gateway asks its webhook in the bursts that real gateways were counted at (gateway.md 3.1 and 3.2).

A burst is what is asked between two info calls: each question is kept with the number of info calls before it, so
that no clock has a say. Where tries have to fit into the window it is made long, where they must not it is made short.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.harness.waiting import until

LONG_S = 600.0
PASSED, REFUSED = [2, 3, 2], [2, 3]
IMAGE, SPEECH, LLM = "text-to-image", "audio-to-text", "llm"
NOBODY = 'error_code="no orchestrators available"'


@dataclasses.dataclass
class AskingNetwork:
    """A gateway, one orchestrator, and what the gateway asked."""

    network: Network
    client: aiohttp.ClientSession
    uris: list[str] = dataclasses.field(default_factory=list)
    asked_after: list[int] = dataclasses.field(default_factory=list)

    async def answer(self, _: web.Request) -> web.Response:
        """Name the orchestrators, and keep how many info calls there were so far."""
        self.asked_after.append(sum(node.info_calls for node in self.network.orchestrators))
        return web.json_response([{"address": uri} for uri in self.uris])

    @property
    def bursts(self) -> list[int]:
        """Return the sizes of the bursts."""
        return [len(list(group)) for _, group in itertools.groupby(self.asked_after)]

    async def send(self, pipeline: str = IMAGE, **request: Any) -> int | str | None:
        """Send a job; return its status, "null", or None if the connection was closed without an answer."""
        url = f"{self.network.gateways['g'].url}/{pipeline}"
        try:
            async with self.client.post(url, **(request or job(pipeline))) as response:
                return "null" if await response.read() == b"null\n" else response.status
        except aiohttp.ServerDisconnectedError:
            return None

    async def errors(self) -> list[str]:
        """Return the lines of the error metric."""
        async with self.client.get(f"{self.network.gateways['g'].cli_url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return [line for line in lines if line.startswith("livepeer_ai_request_errors{")]

    async def until_asked(self, times: int) -> None:
        """Wait for the questions that follow a job."""
        await until(lambda: len(self.asked_after) >= times, f"{times} questions")


def job(pipeline: str) -> dict[str, Any]:
    """Build a sound job."""
    if pipeline == IMAGE:
        return {"json": {"model_id": "m", "prompt": "a bear", "width": 64, "height": 64}}
    if pipeline == LLM:
        messages = [{"role": "user", "content": "Reply with only the number 42"}]
        return {"json": {"model": "m", "messages": messages, "stream": False, "max_tokens": 16}}
    form = aiohttp.FormData()
    form.add_field("model_id", "m")
    sound = Path(__file__).parents[2] / "assets" / "speech.wav"
    form.add_field("audio", sound.read_bytes(), filename=sound.name)
    return {"data": form}


def node(number: int = 0, *, latency_s: float = 0.02, **more: Any) -> OrchestratorSpec:
    """Build an orchestrator that serves three pipelines at any free port of this machine."""
    models = tuple(ModelSpec(slug, "m", latency_s=(latency_s, latency_s)) for slug in (IMAGE, SPEECH, LLM))
    values: dict[str, Any] = {"models": models, "service_uri": "https://127.0.0.1:0", **more}
    return OrchestratorSpec(address=f"0x{number + 1:040x}", **values)


@asynccontextmanager
async def asking_network(*nodes: OrchestratorSpec, **gateway: Any) -> AsyncIterator[AskingNetwork]:
    """Start a network whose gateway asks here."""
    spec = Scenario("questions", 1, (GatewaySpec(**{"name": "g", **gateway}),), nodes or (node(),))
    connector = aiohttp.TCPConnector(force_close=True)
    async with Network(spec) as network, aiohttp.ClientSession(connector=connector) as client:
        stage = AskingNetwork(network, client, [network.orchestrators[0].spec.service_uri])
        app = web.Application()
        app.router.add_get("/orchestrators", stage.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        network.gateways["g"].webhook_url = f"http://127.0.0.1:{runner.addresses[0][1]}/orchestrators"
        try:
            yield stage
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("version", ["0.0.11", "0.8.6", "0.9.1"])
@pytest.mark.parametrize("info_s", [0.0, 0.05])
async def test_a_passed_job_asks_seven_times(version: str, info_s: float) -> None:
    """Two, three, the job, two; and no error is counted."""
    async with asking_network(node(info_s=(info_s, info_s)), version=version, discovery_timeout=60.0) as stage:
        assert await stage.send() == 200
        assert stage.bursts == PASSED
        assert await stage.errors() == []


@pytest.mark.parametrize("fault", ["runner_500", "runner_401", "runner_closed"])
async def test_a_runners_error_is_tried_again_until_the_window_is_over(fault: str) -> None:
    """Seven questions per try, 503, and one line without an orchestrator."""
    async with asking_network(node(fault=fault, latency_s=0.05), retry_window=0.3) as stage:
        assert await stage.send() == 503
        (entry,) = stage.network.logged_jobs
        assert stage.bursts == PASSED * entry.tries
        assert 1 <= entry.tries <= 6
        assert (entry.reached, entry.refused) == (entry.tries, 0)
        (line,) = await stage.errors()
        assert 'error_code="no orchestrators available within 300ms timeout"' in line
        assert 'orchestrator_uri=""' in line
        assert 'orchestrator_address=""' in line


@pytest.mark.parametrize(
    ("version", "pipeline", "seen", "lines"),
    [
        ("0.9.1", IMAGE, None, 0),
        ("0.9.1", SPEECH, "null", 0),
        ("0.9.1", LLM, None, 1),
        ("0.8.6", IMAGE, None, 0),
        ("0.8.6", SPEECH, "null", 0),
        ("0.8.6", LLM, 503, 1),
    ],
)
async def test_twenty_quick_tries_ask_140_times(
    version: str, pipeline: str, seen: int | str | None, lines: int
) -> None:
    """Where they fit into the window nothing is counted, but for llm."""
    async with asking_network(node(fault="runner_500", latency_s=0.0), version=version, retry_window=LONG_S) as stage:
        assert await stage.send(pipeline) == seen
        assert stage.bursts == PASSED * 20
        errors = await stage.errors()
        assert len(errors) == lines
        assert all(NOBODY in line for line in errors)


async def test_a_runners_error_after_the_window_is_one_try() -> None:
    """The window is looked at before a try only."""
    async with asking_network(node(fault="runner_500", latency_s=0.3), retry_window=0.2) as stage:
        began = time.monotonic()
        assert await stage.send() == 503
        assert time.monotonic() - began >= 0.29
        assert stage.bursts == PASSED


@pytest.mark.parametrize(("pipeline", "status"), [(IMAGE, 400), (SPEECH, 400), (LLM, 500)])
async def test_a_runners_400_ends_the_tries(pipeline: str, status: int) -> None:
    """Seven questions, the text for the client, and no metric."""
    async with asking_network(node(fault="runner_400"), retry_window=LONG_S) as stage:
        assert await stage.send(pipeline) == status
        assert stage.bursts == PASSED
        assert await stage.errors() == []


@pytest.mark.parametrize("version", ["0.8.6", "0.9.1"])
@pytest.mark.parametrize(("pipeline", "seen"), [(IMAGE, None), (SPEECH, "null")])
async def test_capacity_refusals_keep_their_sessions(version: str, pipeline: str, seen: str | None) -> None:
    """Twenty times five, and as many lone pairs of questions at the end; no try reaches the runner or is counted."""
    async with asking_network(node(fault="busy"), version=version, retry_window=LONG_S) as stage:
        assert await stage.send(pipeline) == seen
        assert stage.bursts == REFUSED * 20 + [2] * 20
        assert await stage.errors() == []
        (entry,) = stage.network.logged_jobs
        assert (entry.tries, entry.reached, entry.refused) == (20, 0, 20)


async def test_fewer_refusals_of_a_distant_orchestrator_fit_into_the_window() -> None:
    """The lone pairs of questions at the end are as many as the tries, and the answer is 503."""
    async with asking_network(node(fault="busy", info_s=(0.05, 0.05)), retry_window=0.3) as stage:
        assert await stage.send() == 503
        (entry,) = stage.network.logged_jobs
        assert 1 <= entry.tries <= 3
        assert stage.bursts == REFUSED * entry.tries + [2] * entry.tries


async def test_a_slot_that_is_taken_refuses() -> None:
    """Another job has the one slot, as far as it goes."""
    async with asking_network(node(latency_s=60.0), retry_window=LONG_S) as stage:
        first = asyncio.create_task(stage.send())
        await stage.until_asked(5)
        assert await stage.send() is None
        first.cancel()
        await asyncio.wait({first})
        assert stage.network.logged_jobs[0].refused == 20


@pytest.mark.parametrize(("version", "status", "lines"), [("0.8.6", 503, 1), ("0.9.1", None, 0)])
@pytest.mark.parametrize("why", ["model", "price"])
async def test_without_anybody_selectable_there_are_twenty_pairs_of_questions(
    version: str, status: int | None, lines: int, why: str
) -> None:
    """Never a burst of three: neither the model nor the price suits."""
    hidden = node(not_selectable=(IMAGE,) if why == "model" else ())
    max_price = 999 if why == "price" else 0
    async with asking_network(hidden, version=version, max_price=max_price, retry_window=LONG_S) as stage:
        assert await stage.send() == status
        assert stage.bursts == [2] * 20
        errors = await stage.errors()
        assert len(errors) == lines
        assert all(NOBODY in line for line in errors)
        (entry,) = stage.network.logged_jobs
        assert (entry.address, entry.tries, entry.reached) == ("", 20, 0)


async def test_0_0_11_tries_for_as_long_as_the_window_lasts() -> None:
    """Its loop has no number."""
    async with asking_network(node(not_selectable=(IMAGE,)), version="0.0.11", retry_window=1.5) as stage:
        assert await stage.send() == 503
        (entry,) = stage.network.logged_jobs
        assert entry.tries > 20
        assert stage.bursts == [2] * entry.tries


@pytest.mark.parametrize("more", [{"down": True}, {"frozen": True}, {"info_s": (0.2, 0.2)}])
async def test_one_that_gives_no_info_in_time_is_asked_about_once(more: dict[str, Any]) -> None:
    """One pair of questions, and 503 at 3.0 s: all times are a tenth here, so at 0.3 s."""
    async with asking_network(node(**more), retry_window=0.2, discovery_timeout=0.1, info_timeout=0.3) as stage:
        began = time.monotonic()
        assert await stage.send() == 503
        assert time.monotonic() - began >= 0.29
        assert stage.bursts == [2]
        (line,) = await stage.errors()
        assert 'orchestrator_uri=""' in line


async def test_a_hanging_job_asks_five_times_and_twice_when_the_client_leaves() -> None:
    """The broken connection is counted with its orchestrator, since our hang-up broke it."""
    async with asking_network(node(fault="hang")) as stage:
        sending = asyncio.create_task(stage.send())
        await until(stage.network.orchestrators[0].in_use.total, "the orchestrator has the job")
        assert stage.bursts == REFUSED
        sending.cancel()
        await asyncio.wait({sending})
        await stage.until_asked(7)
        assert stage.bursts == PASSED
        (line,) = await stage.errors()
        assert f'orchestrator_uri="{stage.uris[0]}"' in line
        assert stage.network.logged_jobs[0].reached == 1


async def test_an_orchestrator_that_dies_in_the_job_is_one_try() -> None:
    """Seven questions: the last pair waits for its info in vain, and then nobody listens at its address."""
    dying = node(fault="dies_in_job", latency_s=0.1)
    async with asking_network(dying, retry_window=0.3, discovery_timeout=0.2, info_timeout=0.6) as stage:
        assert await stage.send() == 503
        assert stage.bursts == PASSED
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", urlsplit(stage.uris[0]).port)
        assert sorted('orchestrator_uri=""' in line for line in await stage.errors()) == [False, True]


@pytest.mark.parametrize("fault", ["resets", "unreadable"])
async def test_only_a_broken_connection_is_counted_by_name(fault: str) -> None:
    """Once per try, with the version of the orchestrator; the line of nobody comes on top."""
    async with asking_network(
        node(fault=fault, local_address="0xab", version="0.8.6", latency_s=0.4), retry_window=0.2
    ) as stage:
        assert await stage.send() == 503
        named = [line for line in await stage.errors() if 'orchestrator_uri=""' not in line]
        (line,) = named
        assert f'orchestrator_uri="{stage.uris[0]}"' in line
        assert 'orchestrator_address="0xab"' in line
        assert 'orchestrator_version="0.8.6"' in line
        assert line.endswith(" 1")


async def test_the_latency_score_carries_the_orchestrators_version() -> None:
    """gateway.md 3.2: a label like the others."""
    async with asking_network(node(version="0.8.6")) as stage:
        assert await stage.send() == 200
        async with stage.client.get(f"{stage.network.gateways['g'].cli_url}/metrics") as response:
            versions = re.findall(r'latency_score{[^}]*orchestrator_version="([^"]*)"', await response.text())
        assert versions == ["0.8.6"]


@pytest.mark.parametrize(("version", "fault", "tried"), [("0.8.6", "runner_500", 1), ("0.9.1", "runner_503", 1)])
async def test_a_leaked_slot_makes_busy_what_failed(version: str, fault: str, tried: int) -> None:
    """One try reaches the runner, nineteen are refused; the next job is refused from the start, until a restart."""
    leaky = node(fault=fault, version=version, latency_s=0.0)
    async with asking_network(leaky, retry_window=LONG_S) as stage:
        assert await stage.send() is None
        assert stage.bursts == PASSED * tried + REFUSED * 19 + [2] * 19
        stage.asked_after.clear()
        assert await stage.send() is None
        assert stage.bursts == REFUSED * 20 + [2] * 20
        stage.network.orchestrators[0].restart()
        assert await stage.send() == 200


async def test_0_9_1_keeps_its_slots_otherwise() -> None:
    """An ordinary error of the runner frees the slot."""
    async with asking_network(node(fault="runner_500", latency_s=0.0), retry_window=LONG_S) as stage:
        assert await stage.send() is None
        assert stage.network.logged_jobs[0].reached == 20


async def test_a_half_configured_gateway_asks_three_times_and_stays_where_it_was() -> None:
    """It knows a session that served, and prefers it to whomever the webhook names."""
    async with asking_network(node(), node(1), mode="half") as stage:
        first, second = (simulated.spec.service_uri for simulated in stage.network.orchestrators)
        assert await stage.send() == 200
        stage.asked_after.clear()
        stage.uris = [second]
        assert await stage.send() == 200
        assert len(stage.asked_after) == 3
        assert [entry.service_uri for entry in stage.network.logged_jobs] == [first, first]


async def test_0_0_11_takes_llm_jobs_as_forms_only() -> None:
    """JSON is refused in the words of that build; the answer has the old shape."""
    async with asking_network(version="0.0.11") as stage:
        url = f"{stage.network.gateways['g'].url}/llm"
        async with stage.client.post(url, **job(LLM)) as response:
            assert response.status == 400
            assert (await response.json())["error"]["message"] == "request Content-Type isn't multipart/form-data"
        assert stage.bursts == []
        form = aiohttp.FormData({"model_id": "m", "prompt": "Reply with only the number 42"}, default_to_multipart=True)
        async with stage.client.post(url, data=form) as response:
            assert response.status == 200
            answer = await response.json()
        assert answer["response"] == "42"
        assert answer["tokens_used"] > 0


def test_a_version_nobody_built_is_refused() -> None:
    """By name, with those there are."""
    with pytest.raises(ValueError, match=r"unknown version '1\.2\.3': one of 0\.0\.11, 0\.8\.6, 0\.9\.1"):
        GatewaySpec("g", version="1.2.3")


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_a_service_uri_stands_refuses_or_is_silent(scheme: str) -> None:
    """As TCP and TLS see it, and as the scenario or its control port changes it."""
    async with asking_network(node(service_uri=f"{scheme}://127.0.0.1:0")) as stage:
        (simulated,) = stage.network.orchestrators
        port = urlsplit(simulated.spec.service_uri).port
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        context = trusting if scheme == "https" else None

        async def hello() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                return await reader.read(8)
            finally:
                writer.close()

        assert await hello() == b"HTTP/1.1"
        simulated.restart(down=True)
        with pytest.raises(ConnectionRefusedError):
            await hello()
        simulated.restart(frozen=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await hello()
        simulated.restart()
        assert await hello() == b"HTTP/1.1"


def test_scaling_keeps_proportions() -> None:
    """Every time of the gateway and the orchestrators is multiplied, numbers and limits of the machine are not."""
    unscaled = Scenario("s", 1, (GatewaySpec("g"),), (node(latency_s=3.0, info_s=(0.1, 0.3)),))
    scaled = unscaled.scale_times(0.1)
    (gateway,), (spec,) = scaled.gateways, scaled.orchestrators
    assert (gateway.retry_window, gateway.info_timeout, gateway.max_tries) == pytest.approx((0.2, 0.3, 20))
    assert gateway.webhook_timeout == GatewaySpec("g").webhook_timeout
    assert spec.info_s == pytest.approx((0.01, 0.03))
    assert spec.models[0].latency_s == pytest.approx((0.3, 0.3))
    assert spec.error_at_least_s == pytest.approx(0.025)


def test_a_scenario_file_scales_its_times(tmp_path: Path) -> None:
    """With one key for all of them."""
    path = tmp_path / "quick.toml"
    path.write_text('time_factor = 0.1\n[[gateways]]\nname = "g"\n[[orchestrators]]\naddress = "0x1"\nfrozen = true\n')
    loaded = Scenario.load(path)
    assert loaded.gateways[0].retry_window == pytest.approx(0.2)
    assert loaded.orchestrators[0].state == "frozen"
