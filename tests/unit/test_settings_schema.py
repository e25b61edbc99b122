"""Tables are merged key by key, and wrong names lead to right ones."""

from __future__ import annotations

from typing import Any

import pytest

from jobtester.settings.model import Settings
from jobtester.settings.schema import deep_merge, did_you_mean, format_path, type_at


@pytest.mark.parametrize(
    ("base", "override", "merged"),
    [
        ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 1, "d": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 2}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        (None, {"a": 1}, {"a": 1}),
        ({"a": 1}, {}, {"a": 1}),
    ],
)
def test_tables_are_merged_and_all_else_is_replaced(base: Any, override: Any, merged: Any) -> None:
    """Lists are values, not tables."""
    assert deep_merge(base, override) == merged


def test_merging_changes_neither_side() -> None:
    """The built-in pipelines are merged with many configurations."""
    base, override = {"a": {"b": 1}}, {"a": {"c": 2}}
    deep_merge(base, override)
    assert (base, override) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_a_wrong_name_leads_to_the_most_alike() -> None:
    """In any case; and nothing is proposed where nothing is alike."""
    assert did_you_mean("TIMOUT", ["timeout", "uri"]) == "; did you mean timeout?"
    assert did_you_mean("x", ["timeout", "uri"]) == ""


def test_paths_are_written_as_people_write_them() -> None:
    """A path below a single value leads nowhere."""
    assert format_path(("gateways", 0, "url")) == "gateways[0].url"
    assert type_at(Settings, ("server", "port")) is not None
    assert type_at(Settings, ("server", "port", "x")) is None
