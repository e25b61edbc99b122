"""Pipelines are data: built-in ones can be overridden, new ones need no code, and mistakes are named with their key."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from jobtester.configuration import Configuration
from jobtester.domain.orchestrators import Capability, Price, RunnerOffer
from jobtester.domain.plan import find_definition
from jobtester.errors import ConfigError
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import Catalogue, load_catalogue
from jobtester.pipelines.definition import PipelineDefinition
from jobtester.pipelines.request import Requests

ASSETS = Assets()
BATCH = {
    "text-to-image": "Text to image",
    "image-to-image": "Image to image",
    "image-to-video": "Image to video",
    "upscale": "Upscale",
    "audio-to-text": "Audio to text",
    "segment-anything-2": "Segment anything 2",
    "llm": "Llm",
    "image-to-text": "Image to text",
    "text-to-speech": "Text to speech",
}
EXTERNAL = {"openai-chat-completions", "openai-text-embeddings", "openai-image-generation"}
RUNNER = {
    "hello-world", "runner-chat-completions", "runner-text-embeddings", "runner-text-to-image", "runner-video-echo",
}  # fmt: skip
LIVE = "live-video-to-video"


def load(text: str, assets: Assets = ASSETS) -> Catalogue:
    """Load the catalogue with the [pipelines.*] tables of a config.toml."""
    return load_catalogue(tomllib.loads(text).get("pipelines", {}), assets)


def problems(text: str, assets: Assets = ASSETS) -> list[str]:
    """Return every line that is said of a wrong configuration."""
    with pytest.raises(ConfigError) as caught:
        load(text, assets)
    assert caught.value.exit_code == 2
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_estimating_a_price_changes_nothing() -> None:
    """A running daemon compares its pipelines with those of the file read again: only what is written counts."""
    before, after = load(""), load("")
    assert after["llm"].estimate_price_wei(Capability("llm", "m", price=Price(3))) is not None
    assert before == after


def test_built_in_pipelines_are_complete() -> None:
    """All nine batch pipelines are there under go-livepeer's display names, and the external ones under their own."""
    catalogue = load("")
    assert set(catalogue) == set(BATCH) | EXTERNAL | RUNNER | {LIVE}
    assert catalogue[LIVE].name == "Live video to video"
    assert catalogue[LIVE].video is not None
    assert {slug: catalogue[slug].name for slug in BATCH} == BATCH
    assert all(catalogue[slug].byoc and catalogue[slug].name == slug for slug in EXTERNAL)
    assert all(catalogue[slug].runner and catalogue[slug].name == slug for slug in RUNNER)
    assert all(definition.enabled for definition in catalogue.values())
    videos = {slug for slug, definition in catalogue.items() if definition.is_video}
    assert videos == {LIVE, "runner-video-echo"}
    assert all(definition.checks for slug, definition in catalogue.items() if slug not in {"hello-world", *videos})


def test_limits_are_the_contracts() -> None:
    """Warm limits are the suggested ones, and a cold model has five minutes more."""
    catalogue = load("")
    warm = {slug: catalogue[slug].timeout_s for slug in BATCH}
    assert warm == {
        "text-to-image": 60,
        "image-to-text": 60,
        "segment-anything-2": 60,
        "llm": 90,
        "audio-to-text": 90,
        "image-to-image": 90,
        "upscale": 120,
        "text-to-speech": 120,
        "image-to-video": 180,
    }
    assert all(catalogue[slug].cold_timeout_s == limit + 300 for slug, limit in warm.items())


def test_parameters_are_overridden_one_by_one() -> None:
    """What config.toml names is replaced, a list as a whole; what it does not name stays."""
    known = load("""
        [pipelines.text-to-image]
        timeout = "1m30s"
        models = ["stabilityai/*"]
        [pipelines.text-to-image.parameters]
        prompt = ["a cat"]
        width = 768
        [pipelines.text-to-image.per_model."*turbo*".parameters]
        num_inference_steps = 1
    """)
    definition = known["text-to-image"]
    assert definition.timeout_s == 90
    assert definition.models == ("stabilityai/*",)
    assert definition.parameters["prompt"] == ["a cat"]
    assert (definition.parameters["width"], definition.parameters["height"]) == (768, 512)
    turbo = definition.for_model("stabilityai/sdxl-turbo").parameters
    assert (turbo["num_inference_steps"], turbo["guidance_scale"]) == (1, 0)


def test_a_new_pipeline_needs_no_code() -> None:
    """The example of the documentation is tested like a built-in one."""
    known = load("""
        [pipelines.my-own]
        uri = "/my-own"
        name = "My very own"
        content_type = "multipart/form-data"
        files = { image = "image.png" }
        checks = [ { check = "json", path = "images.0.url", is = "image" } ]
    """)
    definition = known["my-own"]
    built = Requests(known, ASSETS, 1).build(definition, "me/model")
    assert (definition.name, built.path) == ("My very own", "/my-own")
    assert built.body.count(b'filename="image.png"') == 1
    assert built.expectation.checks[0].params.is_ == "image"


def test_a_new_external_capability_needs_no_code() -> None:
    """An external capability is called as it is advertised, blanks and capitals included."""
    catalogue = load("""
        [pipelines."Text Reversal v2"]
        byoc = true
        uri = "/reverse"
        parameters = { text = "abc" }
        checks = [ { check = "json", path = "text", equals = "cba" } ]
    """)
    definition = catalogue["Text Reversal v2"]
    assert definition.name == "Text Reversal v2"
    assert Requests(catalogue, ASSETS, 1).build(definition, "m").body == b'{"model_id":"m","text":"abc"}'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[pipelines.upscale]\nsize = 4", "pipelines.upscale.size: no such key"),
        ("[pipelines.upscale]\nslug = 'x'", "pipelines.upscale.slug: no such key"),
        ("[pipelines.upscale]\ninputs = {}", "pipelines.upscale.inputs: no such key"),
        ("[pipelines]\nupscale = true", "pipelines.upscale: has to be a table"),
        ("[pipelines.upscale]\ntimeout = '1 year'", 'pipelines.upscale.timeout: write a duration as "90s"'),
        ("[pipelines.upscale]\ntimeout = 0", "pipelines.upscale.timeout: has to be longer than 0"),
        ("[pipelines.upscale]\ncold_timeout = -1", "pipelines.upscale.cold_timeout: write a duration"),
        ("[pipelines.upscale]\nenabled = 'maybe'", "pipelines.upscale.enabled: "),
        ("[pipelines.upscale]\nmodels = 'all'", "pipelines.upscale.models: "),
        ("[pipelines.upscale]\nuri = 'upscale'", 'pipelines.upscale.uri: has to be a path such as "/text-to-image"'),
        ("[pipelines.upscale]\nuri = '/upscale/'", "pipelines.upscale.uri: has to be a path"),
        ("[pipelines.upscale]\nuri = '/upscale?a=b'", "pipelines.upscale.uri: has to be a path"),
        ("[pipelines.upscale]\nuri = '/up scale'", "pipelines.upscale.uri: has to be a path"),
        ("[pipelines.upscale]\nuri = '//evil.example/x'", "pipelines.upscale.uri: has to be a path"),
        ("[pipelines.upscale]\nuri = '/../cli'", "pipelines.upscale.uri: has to be a path"),
        ("[pipelines.upscale]\ncontent_type = 'text/plain'", "pipelines.upscale.content_type: Input should be"),
        ("[pipelines.upscale]\nmodel_field = 'model id'", "pipelines.upscale.model_field: "),
        ("[pipelines.upscale]\nunits = [true]", "pipelines.upscale.units[0]: has to be a number, or the name of one"),
        ("[pipelines.upscale]\nunits = [-1]", "pipelines.upscale.units[0]: has to be a number, or the name of one"),
        ("[pipelines.my-own]\nname = 'x'", "pipelines.my-own.uri: is missing"),
        ("[pipelines.'My Own']\nuri = '/x'", 'pipelines."My Own": the name is part of an address'),
        ("[pipelines.upscale.parameters]\nprompt = []", "pipelines.upscale.parameters.prompt: the list is empty"),
        ("[pipelines.upscale.parameters]\nmodel_id = 'x'", "pipelines.upscale.parameters.model_id: is filled in"),
        ("[pipelines.llm.parameters]\nstream = true", "pipelines.llm.parameters.stream: write it beside parameters"),
        ("[pipelines.upscale.parameters]\nimage = 'x'", "pipelines.upscale.parameters.image: is a file already"),
        ("[pipelines.upscale.parameters]\nday = 2026-01-01", "pipelines.upscale.parameters.day: dates, times, nan"),
        ("[pipelines.upscale.parameters]\nx = [1, nan]", "pipelines.upscale.parameters.x: dates, times, nan"),
        ("[pipelines.llm.parameters]\nx.y = 18446744073709551616", "pipelines.llm.parameters.x: dates, times, nan"),
        ("[pipelines.upscale.files]\nimage = 'no.png'", "pipelines.upscale.files.image: no.png: no such file"),
        ("[pipelines.upscale.files]\nimage = '../x'", "pipelines.upscale.files.image: '../x': name a file inside"),
        (
            "[pipelines.llm.files]\nimage = 'image.png'",
            'pipelines.llm.files: only content_type = "multipart/form-data"',
        ),
        ("[pipelines.llm]\nchecks = [{ }]", "pipelines.llm.checks[0].check: is missing; there are image, video"),
        ("[pipelines.llm]\nchecks = [{ check = 'chta' }]", "pipelines.llm.checks[0].check: there is no check 'chta'"),
        ("[pipelines.llm]\nchecks = [{ check = [] }]", "pipelines.llm.checks[0].check: there is no check []"),
        (
            "[pipelines.llm]\nvariants = []\nchecks = [{ check = 'chat' }, { check = 'json' }]",
            "pipelines.llm.checks[1].path: is missing",
        ),
        (
            "[pipelines.upscale]\nchecks = [{ check = 'image', sise = 'any' }]",
            "pipelines.upscale.checks[0].sise: the check image has no such parameter; it has path, size,",
        ),
        (
            "[pipelines.upscale]\nchecks = [{ check = 'image', size = 'huge' }]",
            'pipelines.upscale.checks[0]: size is "asked", "input", "any", or such as "512x512"',
        ),
        (
            "[pipelines.upscale]\nchecks = [{ check = 'image', scale = 'four' }]",
            "pipelines.upscale.checks[0].scale: Input should be a valid integer",
        ),
        (
            "[pipelines.upscale]\nchecks = [{ check = 'image', size = 'asked' }]",
            'pipelines.upscale.checks[0]: image size = "asked" needs the parameters width and height',
        ),
        (
            "[pipelines.text-to-image]\nchecks = [{ check = 'image', size = 'input' }]",
            'pipelines.text-to-image.checks[0]: image size = "input" needs a picture among the files',
        ),
        (
            "[pipelines.upscale]\nchecks = [{ check = 'transcript' }]",
            "pipelines.upscale.checks[0]: transcript needs a transcript of the sound that is sent",
        ),
        (
            "[pipelines.audio-to-text]\nchecks = [{ check = 'masks' }]",
            "pipelines.audio-to-text.checks[0]: masks needs the box of an object in the picture",
        ),
        (
            "[pipelines.audio-to-text]\nchecks = [{ check = 'caption' }]",
            "pipelines.audio-to-text.checks[0]: caption needs words, or caption_words",
        ),
        (
            "[pipelines.upscale]\nchecks = [{ check = 'json', path = 'a', pattern = '(' }]",
            "pipelines.upscale.checks[0]: pattern is not a regular expression",
        ),
        (
            "[pipelines.upscale]\nchecks = [{ check = 'json', path = 'a', is = 'picture' }]",
            "pipelines.upscale.checks[0].is: Input should be",
        ),
        (
            "[pipelines.upscale.per_model.'*x4*'.expect.video]\nframes = 3",
            'pipelines.upscale.per_model."*x4*".expect.video: the pipeline has no check of this name',
        ),
        (
            "[pipelines.upscale.per_model.'*x4*'.expect.image]\nscale = 0",
            'pipelines.upscale.per_model."*x4*".expect.image: scale and multiple are at least 1',
        ),
        (
            "[[pipelines.llm.variants]]\nexpect.chat.containing = '42'",
            "pipelines.llm.variants[0].expect.chat.containing: the check chat has no such parameter; it has contains",
        ),
        (
            "[[pipelines.llm.variants]]\nparameters.messages = []",
            "pipelines.llm.variants[0].parameters.messages: the list is empty, so there is nothing to choose",
        ),
        (
            "[[pipelines.upscale.variants]]\nfiles.image = 'speech.wav'",
            'pipelines.upscale.checks[0]: image size = "input" needs a picture among the files',
        ),
    ],
)
def test_mistakes_are_named(text: str, problem: str) -> None:
    """Each mistake is one line that begins with its key path and states what is expected."""
    lines = problems(text)
    assert len(lines) == 1, lines
    assert lines[0].startswith(problem)


def test_all_mistakes_at_once() -> None:
    """Every problem of every pipeline is in one message."""
    lines = problems("""
        [pipelines.upscale]
        timeout = "soon"
        color = "red"
        [pipelines.upscale.files]
        image = "no.png"
        [pipelines.my-own]
        uri = "my-own"
        checks = [{ check = "imgae" }]
        [pipelines.llm]
        checks = [{ check = "chat", containing = "42" }, { check = "json" }]
    """)
    assert [line.split(": ")[0] for line in lines] == [
        "pipelines.upscale.timeout",
        "pipelines.upscale.color",
        "pipelines.llm.checks[0].containing",
        "pipelines.llm.checks[1].path",
        "pipelines.my-own.uri",
    ]


def test_a_disabled_pipeline_needs_no_files() -> None:
    """What is not tested does not have to be complete."""
    catalogue = load("[pipelines.upscale]\nenabled = false\nfiles = { image = 'not-there.png' }")
    assert not catalogue["upscale"].enabled


@pytest.mark.parametrize(
    ("slug", "units"),
    [
        ("text-to-image", 512 * 512),
        ("image-to-image", 512 * 512),
        ("image-to-video", 1024 * 576 * 25),
        ("upscale", 256 * 256),
        ("audio-to-text", 6 * 1000),
        ("segment-anything-2", 256 * 256),
        ("llm", 64),
        ("image-to-text", 256 * 256),
        ("openai-chat-completions", 5),
    ],
)
def test_prices_are_in_the_pipelines_units(slug: str, units: int) -> None:
    """A job's price is its units times the price for one, as go-livepeer counts them."""
    definition = load("")[slug]
    capability = Capability(slug, "m", price=Price(3))
    assert definition.count_units("m") == units
    assert definition.estimate_price_wei(capability) == 3 * units
    assert definition.estimate_price_wei(Capability(slug, "m", price=Price(3, 1000))) == -(-3 * units // 1000)


def test_speech_is_priced_by_its_longest_text() -> None:
    """Characters are counted; of the texts in rotation the longest is the estimate."""
    definition = load("")["text-to-speech"]
    assert definition.count_units("m") == max(len(text) for text in definition.parameters["text"])


@pytest.mark.parametrize(
    ("table", "price"),
    [
        ({"units": ["width", 2], "parameters": {"width": [100, 300]}}, 600),
        ({"units": ["width"]}, None),
        ({"units": ["input.pixels"]}, None),
        ({"units": []}, None),
        ({"units": ["timeout"], "timeout": "30s"}, 30),
        ({"units": [0.5, "n"], "parameters": {"n": 10}}, 5),
        ({"units": ["n"], "variants": [{"parameters": {"n": 7}}, {"parameters": {"n": 3}}]}, 7),
        ({"units": ["n"], "variants": [{"parameters": {"n": 7}}, {}]}, None),
        ({"units": ["n"], "parameters": {"n": 1}, "per_model": {"M*": {"parameters": {"n": 9}}}}, 9),
    ],
)
def test_units_are_data(table: dict[str, Any], price: int | None) -> None:
    """Factors are numbers or names; what cannot be known has no price rather than a wrong one."""
    definition = PipelineDefinition.model_validate({"slug": "x", "uri": "/x", **table})
    assert definition.estimate_price_wei(Capability("x", "model", price=Price(1))) == price


def test_no_price_no_estimate() -> None:
    """Without a price, or with one for no units, nothing is estimated; wei beyond 64 bits are no problem."""
    definition = load("")["llm"]
    assert definition.estimate_price_wei(Capability("llm", "m")) is None
    assert definition.estimate_price_wei(Capability("llm", "m", price=Price(5, 0))) is None
    assert definition.estimate_price_wei(Capability("llm", "m", price=Price(10**30))) == 64 * 10**30


def test_every_check_of_the_documentation_exists() -> None:
    """A pipeline may combine all checks there are, given what each needs to know."""
    known = load("""
        [pipelines.everything]
        uri = "/x"
        content_type = "multipart/form-data"
        files = { image = "small.png", audio = "speech.wav" }
        parameters = { width = 64, height = 64 }
        checks = [
          { check = "image" }, { check = "video" }, { check = "audio" }, { check = "transcript" },
          { check = "caption", words = ["ball"] }, { check = "masks" }, { check = "chat", contains = "42" },
          { check = "embedding", length = 384 }, { check = "json", path = "a.0.b", is = "text", pattern = "^x" },
        ]
    """)
    built = Requests(known, ASSETS, 1).build(known["everything"], "m")
    assert [check.name for check in built.expectation.checks] == [
        "image",
        "video",
        "audio",
        "transcript",
        "caption",
        "masks",
        "chat",
        "embedding",
        "json",
    ]


def test_a_live_runners_app_finds_its_definition() -> None:
    """By its own name, else by the pattern of the last table: config.toml goes before what is built in."""
    known = load("""
        [pipelines."someone/special"]
        runner = true
        uri = "/run"
        [pipelines.mine]
        runner = true
        apps = ["someone/*"]
        uri = "/"
    """)

    def definition(app: str, *, byoc: bool = False) -> str | None:
        runner = None if byoc else RunnerOffer("https://o.example/app", "single-shot")
        return find_definition(known, Capability(app, "default", byoc=byoc, runner=runner))

    assert definition("someone/special") == "someone/special"
    assert definition("someone/hello-world") == "mine"
    assert definition("other/hello-world") == "hello-world"
    assert definition("hello-world") == "hello-world"
    assert definition("livepeer-example/fal-flux-schnell") == "runner-text-to-image"
    assert definition("other/openai-chat-completions") == "runner-chat-completions"
    assert definition("other/openai-text-embeddings") == "runner-text-embeddings"
    assert definition("other/echo") == "runner-video-echo"
    assert definition("other/unheard-of") is None
    assert definition("llm") is None
    assert definition("hello-world", byoc=True) is None


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("runner = true\nbyoc = true", ": is byoc and runner"),
        ("byoc = true\nmethod = 'GET'", ".method: only live runners take GET"),
        ("byoc = true\napps = ['x']", ".apps: only live runners serve apps"),
        ("runner = true\nmethod = 'GET'\ncontent_type = 'multipart/form-data'", ".method: GET carries no files"),
        ("runner = true\nvideo = { update = { a = 1 } }", ".video.update: apps of live runners have no call"),
        ("runner = true\nvideo = {}\nchecks = [{ check = 'json', path = 'x' }]", ".checks: a video app's answer"),
        ("runner = true\nmethod = 'PUT'", ".method: Input should be 'POST' or 'GET'"),
    ],
)
def test_wrong_tables_of_live_runners(table: str, line: str) -> None:
    """Each problem has its key."""
    assert any(f"pipelines.my-app{line}" in problem for problem in problems(f"[pipelines.my-app]\nuri='/x'\n{table}"))


def test_a_video_app_is_priced_for_the_whole_session() -> None:
    """To reserve, to start, to watch and to end: each second may be paid for, and those ahead."""
    definition = load("")["runner-video-echo"]
    assert definition.longest_session_s == 10 + 60 + 30 + 15
    runner = RunnerOffer("https://o.example/session", "persistent", "seconds")
    assert definition.estimate_price_wei(Capability("x/echo", "1", price=Price(7), runner=runner)) == 7 * (115 + 10)


@pytest.mark.parametrize(("longest", "count"), [("2m", 0), ("115s", 0), ("114s", 1), ("100s", 1), ("99s", 2)])
def test_a_session_that_is_too_short_for_a_job_is_warned_of(longest: str, count: int) -> None:
    """The warning names the key, the pipeline and both times."""
    tables = {
        "region": "FRA",
        "leaderboard": {"post": False},
        "gateways": [{"name": "a", "url": "http://gateway.example:8935"}],
        "live_runner": {"enabled": True, "max_session": longest},
    }
    warnings = Configuration.from_tables(tables, origin="test").warnings
    assert len(warnings) == count
    jobs = ("stream of pipelines.runner-video-echo", "session of pipelines.runner-text-to-image")
    assert all(any(f"live_runner.max_session: a {job} may take" in line for job in jobs) for line in warnings)
