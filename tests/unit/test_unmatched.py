"""Filters that match nothing are named, with what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from jobtester.cli.unmatched import explain_absence, find_unmatched
from jobtester.domain.orchestrators import SINGLE_SHOT, Capability, Orchestrator, RunnerOffer
from jobtester.domain.plan import Selection
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import load_catalogue

A = "0x" + "a" * 40
OFFER = RunnerOffer(url="https://o.example:8935/apps/a", mode=SINGLE_SHOT)
NODE = Orchestrator(
    A,
    "https://o.example:8935",
    (
        Capability("llm", "meta/llama-3"),
        Capability("weather", "weather", byoc=True),
        Capability("my-app-v1", "1", runner=OFFER),
        Capability("undefined", "x", byoc=True),
    ),
)
TABLES: Mapping[str, dict[str, Any]] = {
    "weather": {"byoc": True, "uri": "/weather", "checks": [{"check": "json", "path": "city"}]},
    "my-own": {"uri": "/my-own", "checks": [{"check": "json", "path": "city"}]},
    "my-apps": {"runner": True, "apps": ["my-app-*"], "uri": "/", "checks": [{"check": "json", "path": "city"}]},
    "undefined": {"uri": "/undefined", "checks": [{"check": "json", "path": "city"}]},
}


def lines(filters: Mapping[str, Any], tables: Mapping[str, dict[str, Any]] = TABLES) -> list[str]:
    """Return what is said about the filters of a command."""
    return find_unmatched(Selection(**filters), [NODE], load_catalogue(tables, Assets(None)))


@pytest.mark.parametrize(
    ("filters", "line"),
    [
        ({"pipelines": ("weathr",)}, "no pipeline weathr is defined; did you mean weather?"),
        ({"pipelines": ("upscale",)}, "no discovered orchestrator advertises upscale"),
        (
            {"pipelines": ("my-own",)},
            "nobody advertises my-own: network discovery knows only go-livepeer's own pipelines; set byoc = true or "
            "runner = true in [pipelines.my-own], or list it in [[discovery.orchestrators]]",
        ),
        ({"pipelines": ("my-apps",)}, "my-apps tests apps of live runners; name the app: --pipeline my-app-v1"),
        (
            {"pipelines": ("undefined",)},
            "undefined is advertised as an external capability; set byoc = true in [pipelines.undefined]",
        ),
        ({"models": ("meta/llama3",)}, "nobody advertises the model meta/llama3; did you mean meta/llama-3?"),
        ({"orchestrators": ("https://o.example:8936",)}, "no orchestrator https://o.example:8936 was discovered"),
    ],
)
def test_a_filter_that_matches_nothing_is_named(filters: dict[str, tuple[str, ...]], line: str) -> None:
    """Proves that a slip, and a pipeline that nobody advertises, each get one line that says what to do."""
    (found,) = lines(filters)
    assert found.startswith(line)


@pytest.mark.parametrize(
    "filters",
    [
        {"pipelines": ("llm", "weather", "my-app-v1")},
        {"models": ("meta/llama-3",)},
        {"orchestrators": (A.upper().replace("X", "x", 1), "https://o.example:8935")},
    ],
)
def test_nothing_is_said_of_filters_that_match(filters: dict[str, tuple[str, ...]]) -> None:
    """Proves that a filter that some orchestrator matches has no line."""
    assert lines(filters) == []


def test_an_advertised_pipeline_without_definition_is_left_to_the_plan() -> None:
    """Proves that the plan's own reason, no_definition, is not contradicted."""
    assert lines({"pipelines": ("undefined",)}, {}) == []


def test_nothing_is_said_while_nobody_is_discovered() -> None:
    """Proves that an empty network is not explained by the filters."""
    catalogue = load_catalogue({}, Assets(None))
    assert find_unmatched(Selection(pipelines=("weathr",)), [], catalogue) == []


def test_a_pipeline_that_tests_something_is_not_absent() -> None:
    """Proves that the app's own name is not needed: the pattern counts."""
    catalogue = load_catalogue(TABLES, Assets(None))
    assert explain_absence("my-apps", [NODE], catalogue) == ""
