"""The simulated gateway does what the contract says of a real one, kind or not."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import av
import pytest
from aiohttp import web
from PIL import Image

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import ByocSpec, GatewaySpec, ModelSpec, OrchestratorSpec, Scenario, builtin_names
from tests.harness.samples import each_sample
from tests.harness.waiting import until

ASSETS = Path(__file__).parents[2] / "assets"
A, B = "https://a.sim.example:8935", "https://b.sim.example:8935"
LLM = ModelSpec("llm", "m", latency_s=(0.02, 0.03))
Send = Callable[..., Awaitable["Received"]]


@dataclasses.dataclass(frozen=True)
class Received:
    """What a client saw; status None: closed without an answer."""

    status: int | None
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def json(self) -> Any:
        """Decode the body."""
        return json.loads(self.body)


class Webhook:
    """A tester's `/orchestrators`: `answers` may be queued, else `uris` are given out."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.uris: list[str] = []
        self.raw: tuple[int, str] | None = None
        self.times: list[float] = []
        self.url = ""

    async def handle(self, _: web.Request) -> web.Response:
        """Count, and answer."""
        self.times.append(time.monotonic())
        if self.raw is not None:
            return web.Response(status=self.raw[0], text=self.raw[1])
        return web.json_response([{"address": uri, "score": 1.0} for uri in self.uris])


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    """A webhook on a real socket."""
    hook = Webhook()
    app = web.Application()
    app.router.add_get("/orchestrators", hook.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/orchestrators"
    yield hook
    await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of our own, which reuses no connection."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


async def send(client: aiohttp.ClientSession, method: str, url: str, **request: Any) -> Received:
    """Send something and say what came back."""
    try:
        async with client.request(method, url, **request) as response:
            return Received(response.status, await response.read(), dict(response.headers))
    except aiohttp.ServerDisconnectedError:
        return Received(None)


def chat(model: str = "m", prompt: str = "Reply with only the number 42", **more: Any) -> dict[str, Any]:
    """Build an llm job."""
    messages = [{"role": "user", "content": prompt}]
    return {"json": {"model": model, "messages": messages, "stream": False, "max_tokens": 16, **more}}


def job(pipeline: str, model: str) -> dict[str, Any]:
    """Build a sound job of any batch pipeline."""
    match pipeline:
        case "llm":
            return chat(model)
        case "text-to-image":
            size = {"width": 256, "height": 128}
            return {"json": {"model_id": model, "prompt": "a bear", "seed": 42, **size}}
        case "text-to-speech":
            return {"json": {"model_id": model, "text": "Hello there, how are you today?"}}
    form = aiohttp.FormData()
    form.add_field("model_id", model)
    name, file = ("audio", "speech.wav") if pipeline == "audio-to-text" else ("image", "small.png")
    form.add_field(name, (ASSETS / file).read_bytes(), filename=file)
    fields = {
        "segment-anything-2": {"point_coords": "[[108,160]]", "multimask_output": "false", "return_logits": "false"},
        "image-to-video": {"width": "256", "height": "128", "fps": "8", "seed": "5"},
        "image-to-image": {"prompt": "snow", "seed": "5"},
        "upscale": {"prompt": "sharp", "seed": "5"},
    }.get(pipeline, {})
    for key, value in fields.items():
        form.add_field(key, value)
    return {"data": form}


def node(uri: str, *models: ModelSpec, number: int = 1, **more: Any) -> OrchestratorSpec:
    """Build an orchestrator."""
    own = f"0x{'b' * 38}{number:02d}"
    return OrchestratorSpec(
        address=f"0x{'a' * 38}{number:02d}", local_address=own, service_uri=uri, models=models or (LLM,), **more
    )


def scenario(*nodes: OrchestratorSpec, **gateway: Any) -> Scenario:
    """Build a network with one gateway."""
    return Scenario("test", 1, (GatewaySpec(name="g", **gateway),), nodes)


def color_count(picture: Image.Image) -> int:
    """Count the colors of a picture."""
    return len(picture.getcolors(1 << 24) or [])


async def leave(client: aiohttp.ClientSession, url: str, when: Callable[[], bool], **request: Any) -> None:
    """Send a job, and hang up without an answer once something is so."""
    sending = asyncio.create_task(client.post(url, **request))
    await until(when)
    assert not sending.done()
    sending.cancel()
    await asyncio.wait({sending})


async def test_a_job_asks_the_webhook_five_times_before_it_leaves_and_twice_before_its_answer(
    webhook: Webhook, client: aiohttp.ClientSession
) -> None:
    """gateway.md 3.1: five GETs, the work, two GETs, the answer."""
    slow = dataclasses.replace(LLM, latency_s=(0.3, 0.3))
    async with Network(scenario(node(A, slow))) as network:
        network.gateways["g"].webhook_url, webhook.uris = webhook.url, [A]
        url, named = f"{network.gateways['g'].url}/llm", {"X-Request-ID": "r1"}
        sending = asyncio.create_task(send(client, "POST", url, headers=named, **chat()))
        await until(lambda: network.orchestrators[0].in_use.total() == 1)
        assert len(webhook.times) == 5
        assert (await sending).status == 200
        gaps = [after - before for before, after in zip(webhook.times, webhook.times[1:], strict=False)]
        assert len(webhook.times) == 7
        assert gaps[4] >= 0.29
        (entry,) = network.logged_jobs
        assert (entry.request_id, entry.service_uri, entry.status, entry.tries) == ("r1", A, 200, 1)
        assert entry.sent_at >= webhook.times[-1]


@pytest.mark.parametrize(
    ("pipeline", "fault", "status", "body", "least_s"),
    [
        ("llm", "busy", None, b"", 0.0),
        ("image-to-text", "busy", 200, b"null\n", 0.0),
        ("llm", "error_503", 503, b'{"error":{"message":"Service Unavailable Error"}}\n', 1.0),
        ("image-to-text", "runner_400", 400, b"bad input", 0.0),
        ("llm", "runner_400", 500, b'{"error":{"message":"Internal Server Error"}}\n', 0.0),
    ],
)
async def test_failures_are_retried_inside_the_window_and_hide_their_cause(
    webhook: Webhook,
    client: aiohttp.ClientSession,
    pipeline: str,
    fault: str,
    status: int | None,
    body: bytes,
    least_s: float,
) -> None:
    """pipelines.md 5 and 7: 20 quick tries end in EOF or null, slow ones in 503, a runner's 400 at once."""
    model = dataclasses.replace(LLM, pipeline=pipeline)
    window_s = least_s or 60.0  # quick tries are bounded by their number alone
    async with Network(scenario(node(A, model, fault=fault), retry_window=window_s)) as network:
        network.gateways["g"].webhook_url, webhook.uris = webhook.url, [A]
        began = time.monotonic()
        got = await send(client, "POST", f"{network.gateways['g'].url}/{pipeline}", **job(pipeline, "m"))
        assert got.status == status
        assert body in got.body
        assert time.monotonic() - began >= least_s
        (entry,) = network.logged_jobs
        assert entry.success is False
        assert entry.fault == fault
        assert entry.tries == {"busy": 20, "runner_400": 1}.get(fault, min(entry.tries, 5))
        assert len(webhook.times) == 7 * entry.tries


async def test_two_gets_follow_a_client_that_left_while_its_job_ran(
    webhook: Webhook, client: aiohttp.ClientSession
) -> None:
    """gateway.md 3.1, 4: the attempt is canceled, the session removed shortly after."""
    async with Network(scenario(node(A, fault="hang"), stray_delay=0.05)) as network:
        network.gateways["g"].webhook_url, webhook.uris = webhook.url, [A]
        working = network.orchestrators[0].in_use
        await leave(client, f"{network.gateways['g'].url}/llm", lambda: working.total() == 1, **chat())
        assert len(webhook.times) == 5
        await until(lambda: len(webhook.times) == 7)
        (entry,) = network.logged_jobs
        assert (entry.disconnected, entry.status, entry.service_uri, entry.fault) == (True, None, A, "hang")
        assert webhook.times[5] - entry.sent_at >= 0.04
        assert network.orchestrators[0].in_use.total() == 0


async def test_a_client_that_left_during_selection_is_followed_by_the_rest_of_it(
    webhook: Webhook, client: aiohttp.ClientSession
) -> None:
    """gateway.md 3.1, 4: the attempt's remaining GETs come, with the slow info calls between them."""
    async with Network(scenario(node(A, info_s=(0.3, 0.3)))) as network:
        network.gateways["g"].webhook_url, webhook.uris = webhook.url, [A]
        await leave(client, f"{network.gateways['g'].url}/llm", lambda: len(webhook.times) == 2, **chat())
        assert len(webhook.times) == 2
        await until(lambda: len(webhook.times) == 7)
        assert webhook.times[2] - webhook.times[1] >= 0.28
        assert network.logged_jobs[0].service_uri == ""


@pytest.mark.parametrize("raw", [(500, "[]"), (200, "<html>"), (200, '{"address":1}'), (404, "gone")])
async def test_an_unusable_webhook_answer_keeps_the_previous_list(
    webhook: Webhook, client: aiohttp.ClientSession, raw: tuple[int, str]
) -> None:
    """gateway.md 3: not 2xx, or not the list it should be."""
    async with Network(scenario(node(A))) as network:
        gateway = network.gateways["g"]
        gateway.webhook_url, webhook.uris = webhook.url, [A]
        assert (await send(client, "POST", f"{gateway.url}/llm", **chat())).status == 200
        webhook.raw = raw
        assert (await send(client, "POST", f"{gateway.url}/llm", **chat())).status == 200


@pytest.mark.parametrize(("version", "status"), [("0.9.1", None), ("0.8.6", 503)])
async def test_an_empty_webhook_answer_empties_the_list(
    webhook: Webhook, client: aiohttp.ClientSession, version: str, status: int | None
) -> None:
    """gateway.md 3 and pipelines.md 5 (a): nobody selectable is EOF, or 503 before v0.8.7."""
    async with Network(scenario(node(A), version=version)) as network:
        gateway = network.gateways["g"]
        gateway.webhook_url, webhook.uris = webhook.url, [A]
        assert (await send(client, "POST", f"{gateway.url}/llm", **chat())).status == 200
        webhook.uris = []
        assert (await send(client, "POST", f"{gateway.url}/llm", **chat())).status == status
        assert network.logged_jobs[-1].address == ""
        metrics = await send(client, "GET", f"{gateway.cli_url}/metrics")
        assert (b'error_code="no orchestrators available"' in metrics.body) is (status == 503)


async def test_an_answer_waits_for_the_info_calls_and_then_reaches_another_jobs_selection(
    webhook: Webhook, client: aiohttp.ClientSession
) -> None:
    """gateway.md 3.1, 5: one list for all; a job sent for A runs on B if the webhook changed its mind in between."""
    async with Network(scenario(node(A, info_s=(0.3, 0.3)), node(B, number=2))) as network:
        gateway = network.gateways["g"]
        gateway.webhook_url, webhook.uris = webhook.url, [A]
        first = asyncio.create_task(send(client, "POST", f"{gateway.url}/llm", **chat()))
        await until(lambda: len(webhook.times) == 2)
        webhook.uris = [B]
        second = asyncio.create_task(send(client, "POST", f"{gateway.url}/llm", **chat()))
        assert [got.status for got in await asyncio.gather(first, second)] == [200, 200]
        assert [entry.service_uri for entry in network.logged_jobs] == [B, B]


async def test_query_mode_runs_each_job_on_exactly_the_orchestrator_it_names(client: aiohttp.ClientSession) -> None:
    """gateway.md 3: 200 jobs at once over 20 orchestrators, and the log agrees with every request."""
    network_of = generate(
        seed=3,
        orchestrators=20,
        pipelines=("llm",),
        latency_s=(0.0, 0.02),
        gateways=(GatewaySpec(name="g", mode="query"),),
    )
    nodes = [
        dataclasses.replace(spec, models=(dataclasses.replace(spec.models[0], capacity=10),))
        for spec in network_of.orchestrators
    ]
    async with Network(dataclasses.replace(network_of, orchestrators=tuple(nodes))) as network:
        url = network.gateways["g"].url

        async def one(number: int) -> None:
            uri = nodes[number % 20].service_uri
            got = await send(
                client,
                "POST",
                f"{url}/llm",
                params={"orchestrator": uri},
                headers={"X-Request-ID": f"{number} {uri}"},
                **chat("sim/llm-0"),
            )
            assert got.status == 200

        await asyncio.gather(*(one(number) for number in range(200)))
        assert len(network.logged_jobs) == 200
        assert all(entry.request_id.endswith(entry.service_uri) for entry in network.logged_jobs)
        unknown = await send(client, "POST", f"{url}/llm", params={"orchestrator": "https://x.example"}, **chat("m"))
        assert unknown.status is None


async def test_a_stock_gateway_asks_once_and_keeps_its_orchestrator(
    webhook: Webhook, client: aiohttp.ClientSession
) -> None:
    """gateway.md 3: the cached answer and the kept sessions defeat any aiming, the query too."""
    async with Network(scenario(node(A), node(B, number=2), mode="stock")) as network:
        gateway = network.gateways["g"]
        gateway.webhook_url, webhook.uris = webhook.url, [A]
        for aimed in (A, B, B):
            webhook.uris = [aimed]
            got = await send(client, "POST", f"{gateway.url}/llm", params={"orchestrator": aimed}, **chat())
            assert got.status == 200
        assert len(webhook.times) == 1
        assert {entry.service_uri for entry in network.logged_jobs} == {A}


async def test_the_info_limit_bounds_an_orchestrator_that_never_answers(
    webhook: Webhook, client: aiohttp.ClientSession
) -> None:
    """gateway.md 3.1: one try waits for it, and by then the window is over."""
    spec = scenario(node(A, down=True), retry_window=0.2, info_timeout=0.3, discovery_timeout=0.1)
    async with Network(spec) as network:
        network.gateways["g"].webhook_url, webhook.uris = webhook.url, [A]
        began = time.monotonic()
        assert (await send(client, "POST", f"{network.gateways['g'].url}/llm", **chat())).status == 503
        assert time.monotonic() - began >= 0.28
        assert len(webhook.times) == 2
        assert network.logged_jobs[0].address == ""


async def test_every_batch_pipeline_gives_a_sound_answer(client: aiohttp.ClientSession) -> None:
    """pipelines.md 9: shapes, sizes, seeds, and artifacts that decode."""
    alpha = Scenario.load("default").orchestrators[0]
    models = tuple(dataclasses.replace(model, latency_s=(0.0, 0.01)) for model in alpha.models)
    async with Network(scenario(dataclasses.replace(alpha, models=models), mode="query")) as network:
        url = network.gateways["g"].url

        async def ask(pipeline: str) -> Any:
            name = next(model.model for model in models if model.pipeline == pipeline)
            got = await send(client, "POST", f"{url}/{pipeline}", **job(pipeline, name))
            assert got.status == 200
            assert got.headers["Content-Type"].startswith("application/json")
            return got.json

        async def artifact(path: str) -> io.BytesIO:
            got = await send(client, "GET", url + path)
            assert (got.status, got.headers["Cache-Control"]) == (200, "max-age=5")
            return io.BytesIO(got.body)

        for pipeline, size in (
            ("text-to-image", (256, 128)),
            ("image-to-image", (256, 256)),
            ("upscale", (1024, 1024)),
        ):
            (image,) = (await ask(pipeline))["images"]
            assert image["seed"] == (42 if pipeline == "text-to-image" else 5)
            with Image.open(await artifact(image["url"])) as picture:
                assert picture.size == size
                assert color_count(picture) > 100
        (video,) = (await ask("image-to-video"))["images"]
        with av.open(await artifact(video["url"]), "r") as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 256, 128)
            assert sum(1 for _ in container.decode(stream)) == 25
        with wave.open(await artifact((await ask("text-to-speech"))["audio"]["url"])) as sound:
            assert (sound.getframerate(), sound.getnchannels()) == (44_100, 1)
        transcript = await ask("audio-to-text")
        assert "red ball lies on the green grass" in transcript["text"]
        assert "".join(chunk["text"] for chunk in transcript["chunks"]) == transcript["text"]
        assert "ball" in (await ask("image-to-text"))["text"]
        answer = await ask("llm")
        assert answer["choices"][0]["message"]["content"] == "42"
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        masks = await ask("segment-anything-2")
        (mask,) = json.loads(masks["masks"])
        rows = [at for at, row in enumerate(mask) if any(row)]
        assert (len(mask), len(mask[0]), json.loads(masks["scores"])) == (256, 256, [0.96])
        assert 105 < rows[0] < rows[-1] < 215
        missing = await send(client, "GET", f"{url}/stream/00000000/00000000.png")
        assert (missing.status, missing.body) == (404, b"ErrNotFound\n")


PICTURE_FAULTS = ("blank_image", "truncated_image", "not_an_image", "bomb_image", "wrong_size", "unreachable_artifact")


@pytest.mark.parametrize("fault", PICTURE_FAULTS)
async def test_a_pictures_fault_shows_in_its_artifact_only(client: aiohttp.ClientSession, fault: str) -> None:
    """The gateway counts a success; who decodes the picture sees what is wrong."""
    model = ModelSpec("text-to-image", "m", latency_s=(0.0, 0.0))
    async with Network(scenario(node(A, model, fault=fault), mode="query")) as network:
        url = network.gateways["g"].url
        got = await send(client, "POST", f"{url}/text-to-image", **job("text-to-image", "m"))
        content = await send(client, "GET", url + got.json["images"][0]["url"])
        assert network.logged_jobs[0].success
        match fault:
            case "unreachable_artifact":
                assert content.status == 404
            case "not_an_image":
                assert content.body.startswith(b"<html>")
            case "truncated_image":
                with Image.open(io.BytesIO(content.body)) as picture, pytest.raises(OSError, match="truncated"):
                    picture.load()
            case "bomb_image":
                assert len(content.body) < 100_000
                assert int.from_bytes(content.body[16:20]) * int.from_bytes(content.body[20:24]) == 400_000_000
            case _:
                with Image.open(io.BytesIO(content.body)) as picture:
                    assert picture.size == ((128, 64) if fault == "wrong_size" else (256, 128))
                    assert (color_count(picture) == 1) == (fault == "blank_image")


@pytest.mark.parametrize(
    ("fault", "pipeline", "shown"),
    [
        ("empty", "llm", lambda got: got.status == 200 and not got.body),
        ("garbage_json", "llm", lambda got: got.status == 200 and got.body.endswith(b":\n")),
        ("html", "llm", lambda got: got.headers["Content-Type"].startswith("text/html")),
        ("wrong_shape", "llm", lambda got: got.json == {"result": {"ok": True}}),
        ("deep_json", "llm", lambda got: got.body.startswith(b"[" * 100_000)),
        ("null", "llm", lambda got: got.json is None),
        ("eof", "image-to-text", lambda got: got.status is None),
        ("gateway_500", "llm", lambda got: got.status == 500),
        ("gone_410", "llm", lambda got: got.status == 410 and got.headers["Deprecation"] == "true"),
        ("empty_images", "text-to-image", lambda got: got.json == {"images": []}),
        ("no_seed_echo", "text-to-image", lambda got: got.json["images"][0]["seed"] != 42),
        ("empty_text", "image-to-text", lambda got: got.json == {"text": ""}),
        ("wrong_answer", "llm", lambda got: "42" not in got.json["choices"][0]["message"]["content"]),
        ("wrong_transcript", "audio-to-text", lambda got: "grass" not in got.json["text"]),
        ("nan_mask", "segment-anything-2", lambda got: "NaN" in got.json["masks"]),
        ("wrong_mask", "segment-anything-2", lambda got: not json.loads(got.json["masks"])[0][160][108]),
    ],
)
async def test_an_answers_fault_shows_to_the_client(
    client: aiohttp.ClientSession, fault: str, pipeline: str, shown: Callable[[Received], bool]
) -> None:
    """Each fault is what its name says, and the log names it."""
    model = ModelSpec(pipeline, "m", latency_s=(0.0, 0.0))
    async with Network(scenario(node(A, model, fault=fault), mode="query")) as network:
        got = await send(client, "POST", f"{network.gateways['g'].url}/{pipeline}", **job(pipeline, "m"))
        assert shown(got)
        assert network.logged_jobs[0].fault == fault


async def test_bodies_that_break_off_or_never_end(client: aiohttp.ClientSession) -> None:
    """A reset in mid-body is an error to the client; an endless body ends with the client."""
    nodes = (node(A, fault="reset_mid_body"), node(B, fault="endless_body", number=2))
    async with Network(scenario(*nodes, mode="query")) as network:
        url = f"{network.gateways['g'].url}/llm"
        with pytest.raises(aiohttp.ClientError):
            await send(client, "POST", url, params={"orchestrator": A}, **chat())
        async with client.post(url, params={"orchestrator": B}, **chat()) as response:
            read = 0
            async for chunk in response.content.iter_any():
                read += len(chunk)
                if read > 1_000_000:
                    break
        assert read > 1_000_000


@pytest.mark.parametrize(
    ("path", "request_", "message"),
    [
        ("llm", {"data": b""}, "EOF"),
        ("llm", {"data": b'{"model":'}, "unexpected EOF"),
        ("llm", {"json": {"model": "m"}}, "missing required fields"),
        ("llm", {"data": aiohttp.FormData({"prompt": "x"})}, "invalid character 'p' looking for beginning of value"),
        ("text-to-speech", {"json": {"model_id": "m"}}, "text field is required"),
        (
            "text-to-image",
            {"json": {"model_id": "m", "height": "512"}},
            "json: cannot unmarshal string into Go struct field TextToImageParams.height of type int",
        ),
        ("upscale", {"json": {"model_id": "m"}}, "request Content-Type isn't multipart/form-data"),
        (
            "upscale",
            {"data": b"", "headers": {"Content-Type": "multipart/form-data"}},
            "no multipart boundary param in Content-Type",
        ),
        (
            "upscale",
            {"data": b"", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            "multipart: NextPart: EOF",
        ),
    ],
)
async def test_requests_are_refused_in_the_gateways_words(
    client: aiohttp.ClientSession, path: str, request_: dict[str, Any], message: str
) -> None:
    """pipelines.md 6: 400 with the decoder's text, and no orchestrator involved."""
    async with Network(scenario(node(A))) as network:
        got = await send(client, "POST", f"{network.gateways['g'].url}/{path}", **request_)
        assert (got.status, got.json) == (400, {"error": {"message": message}})
        assert network.logged_jobs == []


async def test_a_scalar_of_a_form_must_parse(client: aiohttp.ClientSession) -> None:
    """pipelines.md 3: base 10, or a 400 with Go's words."""
    async with Network(scenario(node(A))) as network:
        request = job("upscale", "m")
        request["data"].add_field("num_inference_steps", "abc")
        got = await send(client, "POST", f"{network.gateways['g'].url}/upscale", **request)
        message = 'error binding string parameter: strconv.ParseInt: parsing "abc": invalid syntax'
        assert got.json == {"error": {"message": message}}


async def test_what_else_the_job_port_answers(client: aiohttp.ClientSession) -> None:
    """pipelines.md 3 and 5: wrong method, wrong path, no model."""
    async with Network(scenario(node(A))) as network:
        url = network.gateways["g"].url
        assert await _brief(client, "GET", f"{url}/llm") == (200, b"")
        assert await _brief(client, "GET", f"{url}/healthz") == (200, b"")
        assert await _brief(client, "POST", f"{url}/llm/") == (404, b"404 page not found\n")
        no_model = {"json": {"prompt": "a bear"}}
        assert (await send(client, "POST", f"{url}/text-to-image", **no_model)).status is None


async def _brief(client: aiohttp.ClientSession, method: str, url: str) -> tuple[int | None, bytes]:
    got = await send(client, method, url)
    return got.status, got.body


async def test_llm_streams_when_asked(client: aiohttp.ClientSession) -> None:
    """pipelines.md 9.7: data lines up to the first finish_reason, no [DONE]."""
    async with Network(scenario(node(A))) as network:
        got = await send(client, "POST", f"{network.gateways['g'].url}/llm", **chat(prompt="Tell me", stream=True))
        chunks = [json.loads(line[6:]) for line in got.body.decode().split("\n\n") if line]
        assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks).startswith("A bear is")
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == ["", "stop"]
        assert b"[DONE]" not in got.body


async def test_the_cli_port_lists_the_network_in_all_its_spellings(
    webhook: Webhook, client: aiohttp.ClientSession
) -> None:
    """gateway.md 2: zero values left out, mixed case here and lower there, integers beyond 64 bits."""
    cold = ModelSpec("text-to-image", "cold", warm=False, capacity=2)
    async with Network(scenario(node(A, LLM, cold), node("", number=2))) as network:
        gateway = network.gateways["g"]
        network_of = (await send(client, "GET", f"{gateway.cli_url}/getNetworkCapabilities")).json
        first, second = network_of["orchestrators"]
        assert first["address"].lower() == f"0x{'a' * 38}01" != first["address"]
        assert second["orch_uri"] == ""
        models = first["capabilities"]["constraints"]["PerCapability"]
        assert models["33"]["models"]["m"] == {"warm": True, "capacity": 1, "runnerVersion": "0.14.1"}
        assert models["27"]["models"]["cold"] == {"capacity": 2, "runnerVersion": "0.14.1"}
        registered = (await send(client, "GET", f"{gateway.cli_url}/registeredOrchestrators")).json
        assert registered[0]["Address"] == first["address"].lower()
        assert registered[0]["DeactivationRound"] > 2**64
        gateway.webhook_url, webhook.uris = webhook.url, [A]
        forked = (await send(client, "GET", f"{gateway.cli_url}/getOrchestratorAICapabilities")).json["orchestrators"]
        assert [entry["type"] for entry in forked[0]["pipelines"]] == ["Llm", "Text to image"]
        assert forked[0]["pipelines"][1]["models"] == [{"name": "cold", "status": {"Cold": 1, "Warm": 0}}]
        assert len(webhook.times) == 1


async def test_metrics_name_who_succeeded_before_the_client_has_its_answer(client: aiohttp.ClientSession) -> None:
    """gateway.md 3.2: one series per capability, under the orchestrator's own address, rewritten at each success."""
    async with Network(scenario(node(A))) as network:
        gateway = network.gateways["g"]

        async def scores() -> list[str]:
            text = (await send(client, "GET", f"{gateway.cli_url}/metrics")).body.decode()
            return [line for line in text.splitlines() if line.startswith("livepeer_ai_request_latency_score{")]

        assert await scores() == []
        await send(client, "POST", f"{gateway.url}/llm", **chat())
        (before,) = await scores()
        for label in (f'orchestrator_uri="{A}"', f'orchestrator_address="0x{"b" * 38}01"', 'pipeline="llm"'):
            assert label in before
        await send(client, "POST", f"{gateway.url}/llm", **chat())
        (after,) = await scores()
        assert before != after


@pytest.mark.parametrize("generation", [1, 2])
async def test_the_event_sink_names_the_orchestrator(client: aiohttp.ClientSession, generation: int) -> None:
    """gateway.md 3.3: an array of envelopes of either generation, with the token it was given."""
    batches: asyncio.Queue[tuple[str, list[dict[str, Any]]]] = asyncio.Queue()

    async def sink(request: web.Request) -> web.Response:
        batches.put_nowait((request.headers["Authorization"], await request.json()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/events", sink)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with Network(scenario(node(A), events=True, event_generation=generation)) as network:
            gateway = network.gateways["g"]
            gateway.events_url, gateway.events_token = f"http://127.0.0.1:{runner.addresses[0][1]}/events", "t"
            await send(client, "POST", f"{gateway.url}/llm", **chat())
            token, batch = await asyncio.wait_for(batches.get(), 60)
        assert token == "Bearer t"
        inner = [envelope["payload" if generation == 1 else "data"] for envelope in batch]
        assert [event["type"] for event in inner] == ["ai_batch_request_received", "ai_batch_request_completed"]
        assert (inner[1]["orch_url"], inner[1]["success"]) == (A, True)
    finally:
        await runner.cleanup()


def byoc_header(**header: Any) -> dict[str, str]:
    """Build the header of a BYOC job."""
    return {"Livepeer": base64.b64encode(json.dumps(header).encode()).decode()}


def targeted_header(capability: str, uri: str) -> dict[str, str]:
    """Build the header of a job for one orchestrator."""
    parameters = json.dumps({"orchestrators": {"include": [uri]}})
    return byoc_header(request="{}", parameters=parameters, capability=capability, timeout_seconds=5)


CAPABILITY = "openai-chat-completions"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Unable to parse job request, err=unexpected end of JSON input\n"),
        ({"Livepeer": "§"}, "Unable to parse job request, err=ErrorSegEncoding\n"),
        (
            byoc_header(request="{}", parameters="{}", capability="c"),
            "Unable to parse job request, err=no timeout_seconds set with request, timeout_seconds is required\n",
        ),
        (
            byoc_header(request="{}", capability="c", timeout_seconds=3),
            "Unable to unmarshal job parameters err=unexpected end of JSON input\n",
        ),
        (targeted_header("c", A), "No orchestrators found for capability c\n"),
        (targeted_header(CAPABILITY, A + "/"), f"No orchestrators found for capability {CAPABILITY}\n"),
    ],
)
async def test_byoc_refusals(client: aiohttp.ClientSession, headers: dict[str, str], message: str) -> None:
    """pipelines.md 11: 400 with these texts; the include text must be exactly that of the pool."""
    async with Network(scenario(node(A, byoc=(ByocSpec(CAPABILITY),)))) as network:
        url = f"{network.gateways['g'].url}/process/request/x"
        got = await send(client, "POST", url, headers=headers, **chat())
        assert (got.status, got.body.decode()) == (400, message)
        assert await _brief(client, "GET", url) == (405, b"Method not allowed\n")


async def test_byoc_runs_on_the_included_orchestrator_and_says_so(
    webhook: Webhook, client: aiohttp.ClientSession
) -> None:
    """pipelines.md 11: worker's bytes, attribution header; candidates come from the webhook of a tester gateway."""
    offer = ByocSpec(CAPABILITY, "q", latency_s=(0.0, 0.0))
    nodes = (node(A, byoc=(offer,)), node(B, byoc=(offer,), number=2, fault="error_503"))
    async with Network(scenario(*nodes)) as network:
        gateway = network.gateways["g"]
        url = f"{gateway.url}/process/request/v1/chat/completions"
        good = await send(client, "POST", url, headers=targeted_header(CAPABILITY, A), **chat("q"))
        assert (good.headers["X-Orchestrator-Url"], good.headers["Content-Type"]) == (A, "text/plain; charset=utf-8")
        assert good.json["choices"][0]["message"]["content"] == "42"
        bad = await send(client, "POST", url, headers=targeted_header(CAPABILITY, B), **chat("q"))
        assert (bad.status, bad.body, "X-Orchestrator-Url" in bad.headers) == (200, b"", False)
        wrong = await send(client, "POST", url, headers=targeted_header(CAPABILITY, A), **chat("other"))
        assert wrong.status == 404
        gateway.webhook_url, webhook.uris = webhook.url, [B]
        assert (await send(client, "POST", url, headers=targeted_header(CAPABILITY, A), **chat("q"))).status == 400
        assert [(entry.service_uri, entry.success) for entry in network.logged_jobs] == [
            (A, True),
            (B, False),
            (A, False),
            ("", False),
        ]


async def test_byoc_slots_are_lost_when_the_client_hangs_up(client: aiohttp.ClientSession) -> None:
    """pipelines.md 11: the orchestrator looks busy from then on."""
    offer = ByocSpec(CAPABILITY, latency_s=(1.0, 1.0))
    async with Network(scenario(node(A, byoc=(offer,)))) as network:
        url, headers = f"{network.gateways['g'].url}/process/request/x", targeted_header(CAPABILITY, A)
        working = network.orchestrators[0].in_use
        await leave(client, url, lambda: working.total() == 1, headers=headers, **chat())
        await until(lambda: len(network.logged_jobs) == 1)
        got = await send(client, "POST", url, headers=headers, **chat())
        assert (got.status, network.logged_jobs[0].disconnected) == (400, True)


async def test_a_gateway_restarts_on_its_ports_and_the_control_port_shows_and_changes(
    client: aiohttp.ClientSession,
) -> None:
    """A tester elsewhere can stop a gateway, change a fault, and read the log."""
    async with Network(scenario(node(A))) as network:
        gateway, control = network.gateways["g"], network.control_url
        url = gateway.url
        stopped = await send(client, "POST", f"{control}/gateways/g/stop")
        assert stopped.json == {"name": "g", "running": False}
        with pytest.raises(aiohttp.ClientConnectorError):
            await send(client, "POST", f"{url}/llm", **chat())
        await send(client, "POST", f"{control}/gateways/g/start")
        address = network.orchestrators[0].spec.address
        patched = await send(client, "PATCH", f"{control}/orchestrators/{address}", json={"fault": "gateway_500"})
        assert patched.json[0]["fault"] == "gateway_500"
        refused = await send(client, "PATCH", f"{control}/orchestrators/{address}", json={"fault": "nonsense"})
        assert refused.status == 400
        assert (await send(client, "POST", f"{url}/llm", **chat())).status == 500
        log = (await send(client, "GET", f"{control}/log?since=0")).json
        assert [(entry["service_uri"], entry["fault"]) for entry in log] == [(A, "gateway_500")]
        assert (await send(client, "GET", f"{control}/log?since=1")).json == []
        assert (await send(client, "GET", f"{control}/rows")).json == []


async def test_stopping_leaves_nothing_running(webhook: Webhook) -> None:
    """Jobs in flight end with the network, and no task stays behind."""
    before = asyncio.all_tasks()
    async with Network(scenario(node(A, fault="hang"))) as network, aiohttp.ClientSession() as session:
        network.gateways["g"].webhook_url, webhook.uris = webhook.url, [A]
        flying = asyncio.create_task(send(session, "POST", f"{network.gateways['g'].url}/llm", **chat()))
        await until(lambda: network.orchestrators[0].in_use.total() == 1)
        await network.stop()
        assert (await flying).status is None
    await until(
        lambda: asyncio.all_tasks() <= before | {task for task in asyncio.all_tasks() if "Webhook" in repr(task)}
    )


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_scenarios_load(name: str) -> None:
    """Each is complete and describes itself."""
    loaded = Scenario.load(name)
    assert loaded.description
    assert loaded.gateways
    assert loaded.orchestrators


def test_a_wrong_key_of_a_scenario_is_named(tmp_path: Path) -> None:
    """The error states what to change."""
    path = tmp_path / "mine.toml"
    path.write_text('[[gateways]]\nname = "g"\nmoed = "query"\n')
    with pytest.raises(ValueError, match="unknown key 'moed' in GatewaySpec"):
        Scenario.load(path)
    with pytest.raises(ValueError, match="no scenario 'nothing'"):
        Scenario.load("nothing")


@each_sample("network-capabilities-batch-byoc.json", "network-capabilities-live.json")
async def test_a_recorded_network_is_replayed_verbatim_and_serves(client: aiohttp.ClientSession, sample: Path) -> None:
    """Every byte on the CLI port; every advertised batch model answers."""
    recorded = Scenario.from_capabilities(sample, gateways=(GatewaySpec(name="g", mode="query"),))
    async with Network(recorded) as network:
        gateway = network.gateways["g"]
        answer = await send(client, "GET", f"{gateway.cli_url}/getNetworkCapabilities")
        assert answer.body == await asyncio.to_thread(sample.read_bytes)
        models = [
            (spec.service_uri, model)
            for spec in recorded.orchestrators
            for model in spec.models
            if model.pipeline != "live-video-to-video"
        ]
        gots = await asyncio.gather(
            *(
                send(
                    client,
                    "POST",
                    f"{gateway.url}/{model.pipeline}",
                    params={"orchestrator": uri},
                    **job(model.pipeline, model.model),
                )
                for uri, model in models
            )
        )
        assert models
        assert all(got.status == 200 for got in gots)
