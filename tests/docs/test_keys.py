"""Keys of config.toml on the pages exist, and what is shown of them can be copied."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from jobtester.configuration import Configuration
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
        if section in ("pipelines", "override"):
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
