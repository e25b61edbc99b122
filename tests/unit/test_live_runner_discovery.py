"""What an orchestrator lists as its live runners is usable, or gives one problem; it never raises."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.domain.orchestrators import Price
from jobtester.live_runner.listing import RunnerListing, parse_listing

URI = "https://node.example:8935"


def entry(**changes: object) -> dict[str, Any]:
    """Return a runner as go-livepeer lists it, with these changes."""
    return {
        "url": f"{URI}/apps/echo-1/app",
        "gpu": {"id": "GPU-1", "name": "NVIDIA GeForce RTX 4090", "vram_mb": 24564},
        "app": "someone/echo",
        "version": "1.2.0",
        "metadata": '{"schema_url":"https://docs.example/echo.json"}',
        "mode": "single-shot",
        "capacity": 4,
        "capacity_used": 1,
        "capacity_available": 3,
        "price_info": {"price": 7, "currency": "wei", "unit": "fixed"},
    } | changes


def listing(*entries: object, uri: str = URI, max_runners: int = 200) -> RunnerListing:
    """Parse a listing of these entries."""
    return parse_listing(orjson.dumps([{"address": uri, "runners": list(entries)}]), uri, max_runners)


def test_a_runner_is_a_capability() -> None:
    """App, version, slots, price, mode, GPU and schema are what the orchestrator lists."""
    result = listing(entry())
    assert not result.problems
    (capability,) = result.capabilities
    assert (capability.pipeline, capability.model) == ("someone/echo", "1.2.0")
    assert (capability.capacity, capability.in_use, capability.price) == (3, 1, Price(7))
    assert capability.runner is not None
    assert capability.runner.url == f"{URI}/apps/echo-1/app"
    assert capability.runner.mode == "single-shot"
    assert capability.runner.unit == "fixed"
    assert capability.runner.gpu == "NVIDIA GeForce RTX 4090"
    assert capability.runner.schema_url == "https://docs.example/echo.json"
    assert not capability.runner.is_foreign


def test_what_may_be_missing() -> None:
    """An off-chain orchestrator gives no price, and an app need not have a version, a GPU or metadata."""
    bare = {"url": f"{URI}/apps/echo-1/app", "app": "echo", "mode": "single-shot", "unknown": [1]}
    (capability,) = listing(bare).capabilities
    assert capability.model == "default"
    assert capability.price is None
    assert not capability.is_priced
    assert capability.runner is not None
    assert (capability.runner.gpu, capability.runner.schema_url, capability.runner.unit) == ("", "", "")


@pytest.mark.parametrize(
    ("version", "metadata", "model"),
    [
        ("1.2.0", '{"model":"org/m"}', "1.2.0"),
        (None, '{"model":"org/m"}', "org/m"),
        ("", '{"model":" org/m "}', "org/m"),
        (None, '{"model":["org/m"]}', "default"),
        (None, '{"model":"a\\u0000b"}', "default"),
        (None, '["model"]', "default"),
        (None, "org/m", "default"),
        (7, None, "default"),
    ],
)
def test_the_model_is_the_version_or_what_the_app_names(version: object, metadata: object, model: str) -> None:
    """The version comes first, then the model of the metadata, then one fixed word; it is never empty."""
    (capability,) = listing(entry(version=version, metadata=metadata)).capabilities
    assert capability.model == model


@pytest.mark.parametrize(
    ("slots", "is_busy"),
    [
        ({"capacity": 4, "capacity_used": 4, "capacity_available": 0}, True),
        ({"capacity": 4, "capacity_used": 0, "capacity_available": 0}, True),
        ({"capacity": 4, "capacity_used": 4, "capacity_available": None}, True),
        ({"capacity": 4, "capacity_used": 1, "capacity_available": 3}, False),
        ({"capacity": None, "capacity_used": None, "capacity_available": None}, False),
    ],
)
def test_a_full_runner_is_busy(slots: dict[str, Any], is_busy: bool) -> None:
    """Whether it says so by free or by taken slots; one that says nothing is not."""
    (capability,) = listing(entry(**slots)).capabilities
    assert capability.is_busy is is_busy


def test_a_live_video_pipeline_is_persistent() -> None:
    """An entry of the serverless kind has no mode; its URL says what it is."""
    (capability,) = listing({"url": f"{URI}/scope", "app": "live-video-to-video/noop"}).capabilities
    assert capability.runner is not None
    assert capability.runner.mode == "persistent"


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example:8935/apps/x/app",
        "https://node.example:9999/apps/x/app",
        "http://node.example:8935/apps/x/app",
        "https://127.0.0.1:7934/apps/x/app",
        "https://node.example.evil.example:8935/apps/x/app",
    ],
)
def test_a_url_of_another_host_is_foreign(url: str) -> None:
    """It is kept, so that the plan can say why it is not tested."""
    (capability,) = listing(entry(url=url)).capabilities
    assert capability.runner is not None
    assert capability.runner.is_foreign


def test_the_same_host_in_another_spelling_is_not_foreign() -> None:
    """Case, a dot at the end and the default port make no difference."""
    (capability,) = listing(entry(url="https://NODE.example:443/apps/x/app"), uri="https://node.example.").capabilities
    assert capability.runner is not None
    assert not capability.runner.is_foreign


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"app": ""}, "no usable app name"),
        ({"app": 5}, "no usable app name"),
        ({"app": "a\u202eb"}, "no usable app name"),
        ({"app": "a" * 201}, "no usable app name"),
        ({"url": None}, "URL"),
        ({"url": "ftp://node.example/app"}, "URL"),
        ({"url": "https://node.example:99999/app"}, "URL"),
        ({"url": "https://node.example:0/app"}, "URL"),
        ({"url": "https://[::1/app"}, "URL"),
        ({"url": "https://user:secret@node.example:8935/app"}, "URL"),
        ({"url": f"{URI}/apps/../cli"}, "URL"),
        ({"url": f"{URI}/app?x=1"}, "URL"),
        ({"url": f"{URI}/{'a' * 2000}"}, "URL"),
        ({"mode": "both"}, "mode"),
        ({"mode": None}, "mode"),
        ({"mode": ["single-shot"]}, "mode"),
        ({"price_info": 7}, "price"),
        ({"price_info": {"price": 1.5, "currency": "wei"}}, "price"),
        ({"price_info": {"price": -1, "currency": "wei"}}, "price"),
        ({"price_info": {"price": True, "currency": "wei"}}, "price"),
        ({"price_info": {"price": "7", "currency": "wei"}}, "price"),
        ({"price_info": {"price": 7, "currency": "usd"}}, "wei"),
    ],
)
def test_an_unusable_entry_gives_one_problem(change: dict[str, object], problem: str) -> None:
    """The others of the same orchestrator stay."""
    result = listing(entry(app="sound"), entry(**change))
    assert [capability.pipeline for capability in result.capabilities] == ["sound"]
    assert len(result.problems) == 1
    assert problem in result.problems[0]


def test_a_price_beyond_64_bits_is_a_problem() -> None:
    """It is no whole number any more once it is parsed."""
    body = orjson.dumps([{"runners": [entry()]}]).replace(b'"price":7', b'"price":' + b"9" * 30)
    result = parse_listing(body, URI)
    assert not result.capabilities
    assert len(result.problems) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{}", b"null", b"[1]", b'"text"', b"[" * 5000, b"\xff\xfe", b'[{"runners": 5}]'],
)
def test_what_is_no_listing_gives_one_problem(body: bytes) -> None:
    """Whatever it is."""
    result = parse_listing(body, URI)
    assert not result.capabilities
    assert len(result.problems) == 1


@pytest.mark.parametrize("body", [b"[]", b"[{}]", b'[{"runners": null}]', b'[{"address":"https://x"}]'])
def test_no_runner_is_no_problem(body: bytes) -> None:
    """An orchestrator without a healthy runner leaves the key out."""
    assert parse_listing(body, URI) == RunnerListing(is_answered=True)


def test_too_many_runners_give_one_problem() -> None:
    """The first ones are read, the rest is not even looked at."""
    result = listing(*(entry(app=f"app-{number}") for number in range(10_000)), max_runners=200)
    assert len(result.capabilities) == 200
    assert len(result.problems) == 1
    assert "10000" in result.problems[0]


def test_one_runner_stands_for_all_of_its_app_and_version() -> None:
    """The one that can be tested and has most free slots, in whichever order they are listed."""
    runners = [
        entry(url=f"{URI}/apps/a/app", capacity_available=1, price_info=None),
        entry(url=f"{URI}/apps/b/app", capacity_available=2, price_info=None),
        entry(url=f"{URI}/apps/c/app", capacity_available=9),
        entry(url=f"{URI}/apps/d/session", capacity_available=9, mode="persistent", price_info=None),
        entry(url="https://other.example/apps/e/app", capacity_available=9, price_info=None),
    ]
    for ordered in (runners, runners[::-1]):
        (capability,) = listing(*ordered).capabilities
        assert capability.runner is not None
        assert capability.runner.url == f"{URI}/apps/b/app"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_ENTRIES = st.dictionaries(st.sampled_from([*entry(), "unknown"]), _JSON, max_size=11).map(lambda bad: entry(**bad))


@given(st.lists(_ENTRIES | _JSON, max_size=6))
def test_every_entry_is_usable_or_a_problem(entries: list[object]) -> None:
    """Nothing raises, nothing is lost but other runners of the same app, and every count is one."""
    try:
        body = orjson.dumps([{"runners": entries}])
    except TypeError:  # lone surrogates
        return
    result = parse_listing(body, URI)
    assert len(result.capabilities) + len(result.problems) <= len(entries)
    assert bool(entries) == bool(result.capabilities or result.problems)
    for capability in result.capabilities:
        assert capability.pipeline
        assert capability.model
        assert capability.capacity >= 0
        assert capability.in_use >= 0
        assert capability.runner is not None
        assert capability.runner.mode in ("single-shot", "persistent")


@given(st.binary(max_size=200))
def test_no_body_raises(body: bytes) -> None:
    """Not even one that is not text."""
    parse_listing(body, URI)
