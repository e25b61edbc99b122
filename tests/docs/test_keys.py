"""Keys of config.toml on the pages exist, and what is shown of them can be copied."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from typing import Any

import pytest

from jobtester.checks.registry import CHECK_TYPES
from jobtester.configuration import Configuration
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import builtin_tables, load_catalogue
from jobtester.pipelines.definition import Override, PipelineDefinition
from jobtester.pipelines.parameter_choices import choose, has_empty_list
from jobtester.pipelines.video_rules import VideoRules
from jobtester.settings.model import Settings
from jobtester.settings.schema import deep_merge
from tests.harness import pages
from tests.harness.pages import Page
from tests.harness.program import is_variable
from tools import documentation_tables as tables

each_page = pytest.mark.parametrize("page", pages.all_pages(), ids=lambda page: page.name)


@each_page
def test_toml_blocks_are_usable(page: Page) -> None:
    """A piece of configuration that is copied into a valid file leaves it valid."""
    for body in page.blocks("toml"):
        base: dict[str, Any] = {"region": "FRA", "leaderboard": {"post": False}, "gateways": [{"url": "http://g:1"}]}
        merged = deep_merge(base, tomllib.loads(body))
        assert isinstance(merged, dict)
        merged["leaderboard"]["secret"] = "s"
        merged["server"] = {"events_token": "t"} | merged.get("server", {})
        if merged["gateways"] == []:
            merged["gateways"] = base["gateways"]
        Configuration.from_tables(merged, origin=page.name)


def test_examples_of_keys_are_usable() -> None:
    """Each example in the table of keys belongs to a key that exists, and would be accepted."""
    for path, value in tables.EXAMPLES.items():
        section = path.split(".")[0]
        if section in ("pipelines", "override", "video"):
            continue
        content: dict[str, Any] = {"gateways": [{"url": "http://g:1"}], "leaderboard": {"post": False}}
        orchestrator = {"address": "0x" + "1" * 40, "service_uri": "https://o"}
        key = path.rsplit(".", 1)[-1]
        if path.startswith("discovery.orchestrators.capabilities."):
            capability = {"pipeline": "llm", "model": "m", key: value}
            content["discovery"] = {"orchestrators": [{**orchestrator, "capabilities": [capability]}]}
        elif path.startswith("discovery.orchestrators."):
            content["discovery"] = {"orchestrators": [{**orchestrator, key: value}]}
        elif section == "gateways":
            content["gateways"][0][key] = value
        elif path == "discovery.source":
            content["discovery"] = {"source": value, "orchestrators": [orchestrator]}
        elif path.startswith("live_runner.payment."):
            content["live_runner"] = {"payment": {key: value}}
        elif section == "pause":
            others = {"cron": "@weekly"} if key == "duration" else {"duration": "1h"} if key == "cron" else {}
            content["pause"] = [{"until": "2030-01-01", "reason": "why", **others, key: value}]
        elif path == "notify.template_type":
            content["notify"] = {key: value, "template": "{}"}
        elif path == "server.proxy_user_header":
            content["server"] = {key: value, "trusted_proxy": ["10.0.0.0/8"]}
        elif "." in path:
            content.setdefault(section, {})[key] = value
        else:
            content[path] = value
        Settings.from_tables(content)


@each_page
def test_keys_named_in_the_text_exist(page: Page) -> None:
    """A key path in the text, or a variable of the environment, is one that the settings have."""
    keys = {path for path, _ in tables.leaves()} | set(Settings.model_fields)
    for code in page.inline:
        path = code.partition(" = ")[0].partition(": ")[0]
        if re.fullmatch(r"[a-z_]+\.[a-z_]+", path) and path.split(".")[0] in Settings.model_fields:
            assert path in keys, f"{code}: no such key"
    for name in re.findall(r"\bJOBTESTER_[A-Z0-9_]*[A-Z0-9]", page.prose):
        assert is_variable(name), f"{name}: no such key"


def test_examples_of_pipeline_keys_are_usable() -> None:
    """Each example in the tables about pipelines belongs to a key that exists, and would be accepted."""
    needed: dict[str, dict[str, Any]] = {
        "pipelines.files": {"content_type": "multipart/form-data"},
        "pipelines.apps": {"runner": True},
        "pipelines.method": {"runner": True},
        "pipelines.variants": {"checks": [{"check": "json", "path": "text"}]},
        "override.files": {"content_type": "multipart/form-data"},
        "override.expect": {"checks": [{"check": "image", "size": "512x512"}]},
        "override.video": {"video": {}},
    }
    for path, value in tables.EXAMPLES.items():
        section, _, key = path.partition(".")
        content: dict[str, Any] = {"uri": "/my-own", **needed.get(path, {})}
        if section == "pipelines":
            content[key] = value
        elif section == "override":
            content["per_model"] = {"x*": {key: value}}
        elif section == "video":
            content["video"] = {key: value}
        else:
            continue
        assert "my-own" in load_catalogue({"my-own": content}, Assets()), path


def test_keys_in_generated_tables_exist() -> None:
    """Each row is a field of what the table is about, and each parameter of a check is one that it takes."""
    reference = pages.page_of("pipelines-reference.md")
    for table, expected in (
        ("pipeline-keys", set(PipelineDefinition.model_fields) - {"slug", "inputs"}),
        ("override-keys", set(Override.model_fields)),
        ("video-keys", set(VideoRules.model_fields)),
    ):
        block = reference.text.split(f"<!-- table: {table} -->", 1)[1].split("<!-- end -->", 1)[0]
        assert set(re.findall(r"^\| `(\w+)`", block, re.MULTILINE)) == expected
    for name, kind in CHECK_TYPES.items():
        for key in (row[0].strip("`") for row in reference.table(f"`{name}`") if row[0].startswith("`")):
            assert key in {field.name.rstrip("_") for field in fields(kind.params)}, f"{name}.{key}"


def test_built_in_questions_are_listed() -> None:
    """The page has what each chat pipeline asks for, in the order of its variants, and leaves none of them out."""
    heading = "How do I change parameters for some models, or ask different questions?"
    listed = {
        slug: re.findall(r"`([^`]+)`", row[1])
        for row in pages.page_of("pipelines.md").table(heading)
        for slug in re.findall(r"`([^`]+)`", row[0])
    }
    asked: dict[str, list[str]] = {}
    for slug, table in builtin_tables().items():
        for variant in table.get("variants", ()):
            word = variant["expect"]["chat"]["contains"]
            question = variant["parameters"]["messages"][0]["content"]
            assert question in (f"Reply with only the number {word}", f"Reply with only the word {word}")
            asked.setdefault(slug, []).append(word)
    assert listed == asked


@pytest.mark.parametrize("row", list(pages.page_of("pipelines.md").table("What does a list of values mean?")))
def test_lists_are_sent_as_the_page_says(row: list[str]) -> None:
    """Over many ticks, each value in the table is sent, and no other."""
    value = tomllib.loads(f"value = {row[0].strip('`')}")["value"]
    if value == []:
        assert has_empty_list(value)
        return
    listed = [json.loads(code) for code in re.findall(r"`([^`]+)`", row[1])]
    sent = [choose(value, seed, "place") for seed in range(64)]
    assert all(choice in sent for choice in listed)
    assert all(choice in listed for choice in sent)
