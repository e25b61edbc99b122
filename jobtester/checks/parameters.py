"""Parameters of checks as they are written in config.toml: `{ check = "image", size = "asked" }`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jobtester.checks.base import Check
from jobtester.checks.registry import CHECK_TYPES


def parameter_problems(table: Mapping[str, Any]) -> list[str]:
    """Say in plain words what is wrong with a check's table, each with where it is about first (`.key: ` or `: `)."""
    name = table.get("check")
    if name is None:
        return [f".check: is missing; there are {_listed(CHECK_TYPES)}"]
    if not isinstance(name, str) or name not in CHECK_TYPES:
        return [f".check: there is no check {name!r}; there are {_listed(CHECK_TYPES)}"]
    known = _keys(name)
    found = [
        f".{key}: the check {name} has no such parameter; it has {_listed(known)}"
        for key in table
        if key not in known and key != "check"
    ]
    try:
        _adapter(name).validate_python(_named(table))
    except ValidationError as error:
        found += [_line(dict(item)) for item in error.errors()]
    return found


def make_check(table: Mapping[str, Any]) -> Check:
    """Make the check that a table describes, one in which `problems` finds none."""
    return Check(table["check"], _adapter(table["check"]).validate_python(_named(table)))


def _named(table: Mapping[str, Any]) -> dict[str, Any]:
    """Give the parameters under their names in the code, which keywords of the language end with an underscore."""
    names = _keys(table["check"])
    return {names[key]: value for key, value in table.items() if key in names}


@cache
def _keys(name: str) -> dict[str, str]:
    return {each.name.rstrip("_"): each.name for each in fields(CHECK_TYPES[name].params)}


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(CHECK_TYPES[name].params)


def _line(item: Mapping[str, Any]) -> str:
    key = str(item["loc"][0]).rstrip("_") if item["loc"] else ""
    if item["type"] == "missing":
        return f".{key}: is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f".{key}: {message} (given: {item['input']!r})" if key else f": {message}"


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names)
