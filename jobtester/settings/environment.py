"""Read settings from variables and secret files: `JOBTESTER_GATEWAYS__0__URL` is the key gateways[0].url."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

import orjson
from pydantic import BaseModel

from jobtester.settings.schema import (
    Path,
    deep_merge,
    did_you_mean,
    format_path,
    is_free,
    is_list,
    is_table,
    item_type,
    iterate_key_paths,
    strip_optional,
    type_at,
)

PREFIX = "JOBTESTER_"
_OTHER_VARIABLES = {"JOBTESTER_CONFIG", "JOBTESTER_SECRETS_DIR"}
# Kubernetes sets these in every pod beside a Service whose name begins with jobtester; they are no keys of ours.
_SERVICE_LINK = re.compile(
    r"JOBTESTER_(?:\w+_)?(?:SERVICE_HOST=.+|SERVICE_PORT(?:_\w+)?=\d+|PORT=\w+://.+|PORT_\d+_(?:TCP|UDP|SCTP)=\w+://.+"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)_(?:PROTO=(?:tcp|udp|sctp)|PORT=\d+|ADDR=.+))"
)


@dataclass(frozen=True, slots=True)
class OutsideValue:
    """One value from outside config.toml; `source` names the variable or the secret file."""

    source: str
    path: Path
    value: Any


@dataclass(frozen=True, slots=True)
class OutsideValues:
    """Values from variables or secret files, the problems of refused ones, and variables of Kubernetes itself."""

    entries: tuple[OutsideValue, ...] = ()
    problems: tuple[str, ...] = ()
    service_links: tuple[str, ...] = ()

    @classmethod
    def from_variables(cls, variables: Mapping[str, str], model: type[BaseModel]) -> Self:
        """Return the values of all variables with our prefix. One whose first part is no key is a problem."""
        texts: dict[str, str] = {}
        unknown: list[str] = []
        links: list[str] = []
        for name, text in variables.items():
            if not name.upper().startswith(PREFIX) or name.upper() in _OTHER_VARIABLES:
                continue
            if _split_name(name)[0] in model.model_fields:
                texts[name] = text
            elif _SERVICE_LINK.fullmatch(f"{name}={text}"):
                links.append(name)
            else:
                unknown.append(name)
        names = [variable_name(path) for path in iterate_key_paths(model)] if unknown else []
        problems = [
            f"{name}: no such key{did_you_mean(name, names)}; see docs/configuration.md for the names"
            for name in unknown
        ]
        values = cls.from_texts({name: (name, text) for name, text in texts.items()}, model)
        return cls(values.entries, (*problems, *values.problems), tuple(sorted(links)))

    @classmethod
    def from_texts(cls, texts: Mapping[str, tuple[str, str]], model: type[BaseModel]) -> Self:
        """Return the values of named texts; each comes with the name of its source, for messages."""
        entries: list[OutsideValue] = []
        problems: list[str] = []
        for name, (source, text) in texts.items():
            path: Path = ()
            try:
                path = _parse_path(_split_name(name), model)
                text.encode("utf-8")
                entries.append(
                    OutsideValue(source, path, _parse_value(text, strip_optional(type_at(model, path)), path))
                )
            except UnicodeEncodeError:
                problems.append(f"{format_path(path)}: is not UTF-8 (in {source})")
            except ValueError as error:
                problems.append(f"{format_path(path) + ': ' if path else ''}{error} (in {source})")
        # Tables come before their keys, so that a key given alone overrides the table's; places in lists come in
        # the order of their numbers, so that a list can be built up item by item.
        entries.sort(key=lambda entry: [(isinstance(part, int), f"{part:>9}") for part in entry.path])
        return cls(tuple(entries), tuple(problems))


def merge_entries(
    tables: Mapping[str, Any], entries: Iterable[OutsideValue], model: type[BaseModel]
) -> tuple[dict[str, Any], list[str]]:
    """Return tables with entries merged into them, and a problem for each that does not fit."""
    merged: Any = dict(tables)
    problems = []
    for entry in entries:
        try:
            merged = _put_value(merged, model, entry.path, entry.value)
        except ValueError as error:
            problems.append(f"{format_path(entry.path)}: {error} (in {entry.source})")
    return merged, problems


def variable_name(path: Path) -> str:
    """Return the name of a key's variable."""
    return PREFIX + "__".join(str(part).upper() for part in path)


def _split_name(name: str) -> list[str]:
    return name.lower().removeprefix(PREFIX.lower()).split("__")


def _parse_path(parts: list[str], model: type[BaseModel]) -> Path:
    # Numbers are places in lists. ValueError where there can be no key.
    path: Path = ()
    annotation: Any = model
    for part in parts:
        kind = strip_optional(annotation)
        if not part:
            raise ValueError("a part of the name is empty")
        if is_list(kind) and not (part.isascii() and part.isdecimal() and len(part) <= 4):
            raise ValueError(f"{format_path(path)} is a list: a number has to follow, 0 for its first item")
        path = (*path, int(part) if is_list(kind) else part)
        annotation = item_type(kind, path[-1])
        if annotation is None:
            raise ValueError(f"{format_path(path[:-1])} is a single value, so it has no key {part!r}")
    return path


def _parse_value(text: str, kind: Any, path: Path) -> Any:
    # A single value stays a text: the type of its key reads it, exactly as if it were in the file.
    if is_free(kind):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    if is_list(kind):
        item = strip_optional(get_args(kind)[0])
        has_single_values = not (is_table(item) or is_list(item))
        if has_single_values and not text.lstrip().startswith(("[", "{")):
            return [part for part in (part.strip() for part in text.split(",")) if part]
        if isinstance(value := _parse_json(text), list):
            return value
        keys = f"name each key, such as {variable_name((*path, 0))}__…"
        advice = "separate the values with commas" if has_single_values else keys
        raise ValueError(f"has to be a list: write it as JSON, or {advice}")
    if is_table(kind):
        if isinstance(value := _parse_json(text), dict):
            return value
        raise ValueError(f"has to be a table: write it as JSON, or name each key, such as {variable_name(path)}__…")
    return text


def _parse_json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _put_value(base: Any, kind: Any, path: Path, value: Any) -> Any:
    if not path:
        return deep_merge(base, value)
    kind, (part, *rest) = strip_optional(kind), path
    inner = item_type(kind, part)
    number = int(part) if isinstance(part, int) or part.isdecimal() else None
    if number is not None and (is_list(kind) or (is_free(kind) and not isinstance(base, Mapping))):
        if not isinstance(base, list | None):
            return base  # wrong in the file already: the check of the whole will report that
        items = list(base or [])
        if number > len(items):
            raise ValueError(f"would leave a gap: the list has {len(items)}, so the next one is number {len(items)}")
        items[number:] = [
            _put_value(items[number] if number < len(items) else None, inner, tuple(rest), value),
            *items[number + 1 :],
        ]
        return items
    if not isinstance(base, Mapping | None):
        return base
    return {**(base or {}), part: _put_value((base or {}).get(part), inner, tuple(rest), value)}
