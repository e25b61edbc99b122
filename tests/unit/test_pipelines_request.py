"""Requests are what a current gateway takes, byte for byte the same for every orchestrator of a tick."""

from __future__ import annotations

import json
import math
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.checks.base import Expectation
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import load_catalogue
from jobtester.pipelines.parameter_choices import choose
from jobtester.pipelines.request import Request, Requests, encode_multipart, form_text

ASSETS = Assets()
KNOWN = load_catalogue({}, ASSETS)
MODEL = "maker/model"

# What reaches the runner (docs/pipelines.md 9): other fields are dropped by the gateway, which rebuilds the request.
FIELDS = {
    "text-to-image": "model_id prompt height width guidance_scale negative_prompt safety_check seed num_inference_steps"
    " num_images_per_prompt loras",
    "image-to-image": "model_id prompt image strength guidance_scale image_guidance_scale negative_prompt safety_check"
    " seed num_inference_steps num_images_per_prompt loras",
    "image-to-video": "model_id image height width fps motion_bucket_id noise_aug_strength safety_check seed"
    " num_inference_steps",
    "upscale": "model_id prompt image safety_check seed num_inference_steps",
    "audio-to-text": "model_id audio return_timestamps",
    "segment-anything-2": "model_id image point_coords point_labels box mask_input multimask_output return_logits"
    " normalize_coords",
    "llm": "model messages stream max_tokens temperature top_p top_k",
    "image-to-text": "model_id image prompt",
    "text-to-speech": "model_id text description",
}
REQUIRED = {
    "text-to-image": "model_id prompt",
    "image-to-image": "model_id prompt image",
    "image-to-video": "model_id image",
    "upscale": "model_id prompt image",
    "audio-to-text": "model_id audio",
    "segment-anything-2": "model_id image",
    "llm": "model messages stream max_tokens",
    "image-to-text": "model_id image",
    "text-to-speech": "model_id text",
}
FORMS = ["image-to-image", "image-to-video", "upscale", "audio-to-text", "segment-anything-2", "image-to-text"]


def request(slug: str, model: str = MODEL, seed: int = 1, **override: Any) -> Request:
    """Build one request, with parts of the definition overridden."""
    catalogue = load_catalogue({slug: override}, ASSETS) if override else KNOWN
    return Requests(catalogue, ASSETS, seed).build(catalogue[slug], model)


def form(built: Request) -> dict[str, Message]:
    """Read a multipart body with a reader that is not ours."""
    head = f"Content-Type: {built.content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + built.body)
    assert message.is_multipart()
    parts: list[Message] = list(message.iter_parts())
    names = [str(part.get_param("name", header="content-disposition")) for part in parts]
    assert len(set(names)) == len(names)
    return dict(zip(names, parts, strict=True))


def sent_fields(slug: str, **more: Any) -> dict[str, Any]:
    """Return the fields of a request as the gateway reads them: text in forms, JSON values otherwise."""
    built = request(slug, **more)
    if slug not in FORMS:
        assert built.content_type == "application/json"
        fields: dict[str, Any] = json.loads(built.body)
        return fields
    return {
        name: part.get_payload(decode=True) if part.get_filename() else str(part.get_payload())
        for name, part in form(built).items()
    }


@pytest.mark.parametrize("slug", FIELDS)
def test_exactly_the_fields_that_reach_the_runner(slug: str) -> None:
    """No field is sent that the gateway drops, and none is missing whose absence is charged to the orchestrator."""
    fields = set(sent_fields(slug))
    assert fields <= set(FIELDS[slug].split())
    assert fields >= set(REQUIRED[slug].split())


@pytest.mark.parametrize("slug", FIELDS)
def test_goes_to_the_pipelines_route_as_the_model(slug: str) -> None:
    """The route is the slug, and the model's id is sent exactly as advertised."""
    built = request(slug, "Maker/Some-Model_v1.0")
    assert built.path == f"/{slug}"
    assert (
        sent_fields(slug, model="Maker/Some-Model_v1.0")["model" if slug == "llm" else "model_id"]
        == "Maker/Some-Model_v1.0"
    )


def test_text_to_image_is_the_known_probe() -> None:
    """The picture asked for is small, one, seeded, and each number is of the type that the gateway wants."""
    fields = sent_fields("text-to-image")
    prompt = fields.pop("prompt")
    assert prompt in KNOWN["text-to-image"].parameters["prompt"]
    assert "|" not in prompt
    assert fields == {
        "model_id": MODEL,
        "width": 512,
        "height": 512,
        "num_inference_steps": 20,
        "guidance_scale": 2,
        "safety_check": False,
        "seed": 42,
        "num_images_per_prompt": 1,
    }
    assert {name: type(value) for name, value in fields.items() if "_" not in name} == {
        "width": int,
        "height": int,
        "seed": int,
    }


def test_llm_is_a_chat_in_json() -> None:
    """The model gets `model`, `messages` with text content, `stream` false and a whole number of tokens."""
    fields = sent_fields("llm")
    (message,) = fields.pop("messages")
    assert message["role"] == "user"
    assert message["content"].startswith("Reply with only the ")
    assert fields == {"model": MODEL, "max_tokens": 64, "temperature": 0.0, "stream": False}
    assert isinstance(fields["max_tokens"], int)


@pytest.mark.parametrize("seed", range(12))
def test_llm_expects_what_it_asks_for(seed: int) -> None:
    """Whatever variant a tick gets, the check wants the word or number of the prompt."""
    for slug in ("llm", "openai-chat-completions"):
        built = request(slug, seed=seed)
        content = built.parameters["messages"][0]["content"]
        assert content.split()[-1] == built.expectation.checks[0].params.contains


def test_segment_anything_is_small() -> None:
    """One mask of a small picture, without logits, prompted by a point on the known ball and one beside it."""
    fields = sent_fields("segment-anything-2")
    truth = ASSETS.get("small.png").metadata
    assert max(truth.width, truth.height) <= 512
    points, labels = json.loads(fields["point_coords"]), json.loads(fields["point_labels"])
    left, top, right, bottom = truth.box
    inside = [left < x < right and top < y < bottom for x, y in points]
    assert inside == [label == 1 for label in labels] == [True, False]
    assert (fields["multimask_output"], fields["return_logits"]) == ("false", "false")


@pytest.mark.parametrize("slug", FORMS)
def test_files_travel_with_their_name(slug: str) -> None:
    """A file part has a filename and the file's own bytes; everything else is text that Go's parsers take."""
    parts = form(request(slug))
    files = {name: part for name, part in parts.items() if part.get_filename()}
    assert {name: part.get_filename() for name, part in files.items()} == KNOWN[slug].files
    for part in files.values():
        assert part.get_payload(decode=True) == ASSETS.get(str(part.get_filename())).content
    for name, part in parts.items():
        if name not in files:
            text = str(part.get_payload())
            assert text not in ("True", "False", "None")
            assert text or name == "prompt"


def test_sizes_are_what_runners_take() -> None:
    """Every width and height can be divided by eight, and the picture to be upscaled is small."""
    for definition in KNOWN.values():
        for side in ("width", "height"):
            assert definition.parameters.get(side, 8) % 8 == 0
    assert ASSETS.get("small.png").metadata.width == 256
    assert KNOWN["upscale"].files == {"image": "small.png"}


def test_timestamps_are_asked_for_as_text() -> None:
    """`return_timestamps` is the text that the runner reads."""
    assert sent_fields("audio-to-text")["return_timestamps"] == "true"


@pytest.mark.parametrize(
    ("slug", "model", "name", "value"),
    [
        ("text-to-image", "SG161222/RealVisXL_V4.0_Lightning", "num_inference_steps", 8),
        ("text-to-image", "ByteDance/SDXL-Lightning", "num_inference_steps", 8),
        ("text-to-image", "stabilityai/sdxl-turbo", "guidance_scale", 0),
        ("text-to-image", "black-forest-labs/FLUX.1-schnell", "num_inference_steps", 4),
        ("text-to-image", "black-forest-labs/FLUX.1-dev", "num_inference_steps", 20),
        ("image-to-image", "timbrooks/instruct-pix2pix", "num_inference_steps", "20"),
        ("image-to-image", "ByteDance/SDXL-Lightning", "num_inference_steps", "8"),
    ],
)
def test_models_get_the_steps_they_were_made_for(slug: str, model: str, name: str, value: object) -> None:
    """Distilled models are asked for few steps, which is data in builtin.toml."""
    assert sent_fields(slug, model=model)[name] == value


def test_models_change_what_is_expected_too() -> None:
    """The small video model has 14 frames; Lightning may ignore the input's size."""
    small = request("image-to-video", "stabilityai/stable-video-diffusion-img2vid").expectation.checks[0]
    large = request("image-to-video", "stabilityai/stable-video-diffusion-img2vid-xt-1-1").expectation.checks[0]
    any_size = request("image-to-image", "ByteDance/SDXL-Lightning").expectation.checks[0]
    assert (small.params.frames, large.params.frames, any_size.params.size) == (14, 25, "any")


def test_external_models_may_be_nameless() -> None:
    """Where nobody names a model, the capability's own name stands for it and is not sent: no worker would know it."""
    slug = "openai-text-embeddings"
    assert "model" not in sent_fields(slug, model=slug)
    assert sent_fields(slug, model="BAAI/bge-m3")["model"] == "BAAI/bge-m3"


def test_the_same_for_every_orchestrator() -> None:
    """A request is made once for a pipeline and model, and depends on the seed alone."""
    requests = Requests(KNOWN, ASSETS, 5)
    for definition in KNOWN.values():
        built = requests.build(definition, MODEL)
        assert requests.build(definition, MODEL) is built
        assert Requests(KNOWN, ASSETS, 5).build(definition, MODEL) == built


@pytest.mark.parametrize("slug", ["text-to-image", "llm", "text-to-speech", "upscale", "openai-text-embeddings"])
def test_prompts_rotate(slug: str) -> None:
    """Over the ticks everything that can be chosen is chosen, so that remembering answers gains nothing."""
    definition = KNOWN[slug]
    bodies = {Requests(KNOWN, ASSETS, seed).build(definition, MODEL).body for seed in range(200)}
    lists = [value for value in definition.parameters.values() if isinstance(value, list)]
    assert len(bodies) == len(definition.variants or lists[0])


def test_what_is_shown_names_files() -> None:
    """The parameters that are posted show everything sent, files by their name, and are JSON."""
    shown = request("audio-to-text").parameters
    assert json.loads(json.dumps(shown)) == {"model_id": MODEL, "return_timestamps": "true", "audio": "speech.wav"}


def test_streams_are_asked_for() -> None:
    """With stream = true the request says so and the first token is looked for; else nothing is."""
    streamed = request("llm", stream=True)
    assert json.loads(streamed.body)["stream"] is True
    assert request("llm").first_token is None
    first = streamed.first_token
    assert first is not None
    assert first.search(b'data: {"choices":[{"delta":{"role":"assistant","content" : "4"}}]}')
    for early in (b'{"delta":{"role":"assistant","content":""}}', b'{"delta":{"content":null}}', b'{"delta":{}}'):
        assert first.search(early) is None
    assert "stream" not in json.loads(request("openai-text-embeddings").body)


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([["a", "b"]], [["a", "b"]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ({"x": ["a", "b"], "y": 1}, [{"x": "a", "y": 1}, {"x": "b", "y": 1}]),
        ([{"role": "user", "content": ["a", "b"]}], [[{"role": "user", "content": each}] for each in "ab"]),
        ([True, "x", 3], [True, "x", 3]),
    ],
)
def test_lists_are_choices(value: Any, chosen: list[Any]) -> None:
    """Of a list one item is taken, as it is; a list of tables is data whose own lists are choices."""
    choices = [choose(value, seed, "place") for seed in range(60)]
    assert all(each in chosen for each in choices)
    assert all(each in choices for each in chosen)


@given(
    fields=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10),
        st.text(st.characters(codec="utf-8")) | st.integers() | st.booleans(),
        max_size=4,
    ),
    content=st.binary(max_size=200),
)
def test_form_data_holds_anything(fields: dict[str, Any], content: bytes) -> None:
    """The boundary occurs in no field and no file, and the same content makes the same bytes."""
    body, content_type = encode_multipart(fields, {"image": ("a.png", content)})
    boundary = content_type.rpartition("boundary=")[2].encode()
    assert body.count(b"--" + boundary) == len(fields) + 2
    assert body.endswith(b"\r\n--" + boundary + b"--\r\n")
    parts = body[: -len(boundary) - 6].split(b"--" + boundary + b"\r\n")[1:]
    texts = [part.partition(b"\r\n\r\n")[2][:-2] for part in parts]
    assert texts == [*(form_text(value).encode() for value in fields.values()), content]
    assert encode_multipart(fields, {"image": ("a.png", content)}) == (body, content_type)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (42, "42"),
        (0.8, "0.8"),
        ("", ""),
        ([[1, 2]], "[[1,2]]"),
        ({"a": "ü"}, '{"a":"ü"}'),
    ],
)
def test_scalars_as_text(value: object, text: str) -> None:
    """Truth values are small letters, whole numbers base 10, anything nested JSON."""
    assert form_text(value) == text


@pytest.mark.parametrize(
    ("value", "number"),
    [(42, 42), (0.5, 0.5), ("42", 42), (" -7 ", -7), (True, None), (math.nan, None), (math.inf, None), (10**400, None),
     ("--5", None), ("0.5", None), ("9" * 5000, None), ([1], None), (None, None)],
)  # fmt: skip
def test_only_numbers_of_usual_size_are_expected(value: Any, number: float | None) -> None:
    """Whatever a configuration sets as a parameter, the expectation of the answer can be calculated."""
    assert Expectation(parameters={"seed": value}).find_number("seed") == number


@pytest.mark.parametrize(
    ("parameters", "size"),
    [({"width": 8, "height": "16"}, (8, 16)), ({"size": "8x16"}, (8, 16)), ({"size": "auto"}, None),
     ({"size": "9" * 5000 + "x1"}, None), ({"width": math.nan, "height": 8}, None)],
)  # fmt: skip
def test_the_asked_size_is_read_where_there_is_one(parameters: dict[str, Any], size: tuple[int, int] | None) -> None:
    """As width and height, or as OpenAI writes it; anything else is none."""
    assert Expectation(parameters=parameters).requested_size == size


def test_an_app_of_a_live_runner_gets_no_model() -> None:
    """Its version is not a model; a GET carries its parameters as the query, and nothing as its body."""
    own: dict[str, dict[str, Any]] = {
        "posts": {"runner": True, "uri": "/run", "parameters": {"prompt": "x", "model_id": "mine"}},
        "gets": {"runner": True, "uri": "/", "method": "GET", "parameters": {"q": "a b&c", "n": 1}},
    }
    catalogue = load_catalogue(own, ASSETS)
    requests = Requests(catalogue, ASSETS, 1)
    posted = requests.build(catalogue["posts"], "1.2.0")
    assert json.loads(posted.body) == {"prompt": "x", "model_id": "mine"}
    assert (posted.method, posted.path) == ("POST", "/run")
    gotten = requests.build(catalogue["gets"], "1.2.0")
    assert (gotten.method, gotten.path, gotten.body) == ("GET", "/?q=a%20b%26c&n=1", b"")
    assert gotten.takes_any_answer
