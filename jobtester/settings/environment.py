"""Settings from variables and secret files: `JOBTESTER_GATEWAYS__0__URL` is the key gateways[0].url."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

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
# What Kubernetes sets in every pod beside a Service whose name begins with jobtester, by name and by value.
_SERVICE_LINK = re.compile(
    r"JOBTESTER_(?:\w+_)?(?:SERVICE_HOST=.+|SERVICE_PORT(?:_\w+)?=\d+|PORT=\w+://.+|PORT_\d+_(?:TCP|UDP|SCTP)=\w+://.+"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)_(?:PROTO=(?:tcp|udp|sctp)|PORT=\d+|ADDR=.+))"
)


@dataclass(frozen=True, slots=True)
class OutsideValue:
    """One value from outside the file; `source` names the variable or the secret file."""

    source: str
    path: Path
    value: Any


@dataclass(frozen=True, slots=True)
class OutsideValues:
    """What was read, what is wrong with the rest, and the variables that are service links of Kubernetes."""

    entries: tuple[OutsideValue, ...] = ()
    problems: tuple[str, ...] = ()
    service_links: tuple[str, ...] = ()


def from_variables(variables: Mapping[str, str], model: type[BaseModel]) -> OutsideValues:
    """Return the entries of all variables with our prefix. One whose first part is no key is a problem."""
    texts: dict[str, str] = {}
    unknown: list[str] = []
    links: list[str] = []
    for name, text in variables.items():
        if not name.upper().startswith(PREFIX) or name.upper() in _OTHER_VARIABLES:
            continue
        if _parts(name)[0] in model.model_fields:
            texts[name] = text
        elif _SERVICE_LINK.fullmatch(f"{name}={text}"):
            links.append(name)
        else:
            unknown.append(name)
    known = [variable_name(path) for path in iterate_key_paths(model)] if unknown else []
    problems = [
        f"{name}: no such key{did_you_mean(name, known)}; see docs/configuration.md for the names" for name in unknown
    ]
    read = from_texts({name: (name, text) for name, text in texts.items()}, model)
    return OutsideValues(read.entries, (*problems, *read.problems), tuple(sorted(links)))


def from_texts(texts: Mapping[str, tuple[str, str]], model: type[BaseModel]) -> OutsideValues:
    """Return the entries of named texts; each comes with what it is called in messages."""
    entries: list[OutsideValue] = []
    problems: list[str] = []
    for name, (source, text) in texts.items():
        path: Path = ()
        try:
            path = _path(_parts(name), model)
            text.encode("utf-8")
            entries.append(OutsideValue(source, path, _value(text, strip_optional(type_at(model, path)), path)))
        except UnicodeEncodeError:
            problems.append(f"{format_path(path)}: is not UTF-8 (in {source})")
        except ValueError as error:
            problems.append(f"{format_path(path) + ': ' if path else ''}{error} (in {source})")
    return OutsideValues(tuple(sorted(entries, key=_order)), tuple(problems))


def merge_entries(
    tables: Mapping[str, Any], entries: Iterable[OutsideValue], model: type[BaseModel]
) -> tuple[dict[str, Any], list[str]]:
    """Return tables with entries merged into them, and the problems of those that do not fit."""
    merged: Any = dict(tables)
    problems = []
    for entry in entries:
        try:
            merged = _put(merged, model, entry.path, entry.value)
        except ValueError as error:
            problems.append(f"{format_path(entry.path)}: {error} (in {entry.source})")
    return merged, problems


def variable_name(path: Path) -> str:
    """Return the name of a key's variable."""
    return PREFIX + "__".join(str(part).upper() for part in path)


def _parts(name: str) -> list[str]:
    lower = name.lower()
    return lower.removeprefix(PREFIX.lower()).split("__")


def _path(parts: list[str], model: type[BaseModel]) -> Path:
    """Return a key path, with numbers for places in lists. Raises ValueError where there can be no key."""
    path: Path = ()
    annotation: Any = model
    for part in parts:
        here = strip_optional(annotation)
        if not part:
            raise ValueError("a part of the name is empty")
        if is_list(here) and not (part.isascii() and part.isdecimal() and len(part) <= 4):
            raise ValueError(f"{format_path(path)} is a list: a number has to follow, 0 for its first item")
        path = (*path, int(part) if is_list(here) else part)
        annotation = item_type(here, path[-1])
        if annotation is None:
            raise ValueError(f"{format_path(path[:-1])} is a single value, so it has no key {part!r}")
    return path


def _value(text: str, kind: Any, path: Path) -> Any:
    """Return what a text means where a kind of value is expected. Raises ValueError."""
    if is_free(kind):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    if is_list(kind):
        item = strip_optional(get_args(kind)[0])
        single = not (is_table(item) or is_list(item))
        if single and not text.lstrip().startswith(("[", "{")):
            return [part for part in (part.strip() for part in text.split(",")) if part]
        if isinstance(value := _json(text), list):
            return value
        how = "separate the values with commas" if single else f"name each key, such as {variable_name((*path, 0))}__…"
        raise ValueError(f"has to be a list: write it as JSON, or {how}")
    if is_table(kind):
        if isinstance(value := _json(text), dict):
            return value
        raise ValueError(f"has to be a table: write it as JSON, or name each key, such as {variable_name(path)}__…")
    return text


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _order(entry: OutsideValue) -> list[tuple[bool, int, str]]:
    """Sort tables before their keys, and places in lists by number."""
    return [(isinstance(part, int), part if isinstance(part, int) else 0, str(part)) for part in entry.path]


def _put(below: Any, kind: Any, path: Path, value: Any) -> Any:
    """Return what is below with a value at a path. Raises ValueError for a gap in a list."""
    if not path:
        return deep_merge(below, value)
    kind, (part, *rest) = strip_optional(kind), path
    inner = item_type(kind, part)
    number = int(part) if isinstance(part, int) or part.isdecimal() else None
    if number is not None and (is_list(kind) or (is_free(kind) and not isinstance(below, Mapping))):
        if not isinstance(below, list | None):
            return below  # wrong in the file already, which the check of the whole says
        items = list(below or [])
        if number > len(items):
            raise ValueError(f"would leave a gap: the list has {len(items)}, so the next one is number {len(items)}")
        items[number:] = [
            _put(items[number] if number < len(items) else None, inner, tuple(rest), value),
            *items[number + 1 :],
        ]
        return items
    if not isinstance(below, Mapping | None):
        return below
    return {**(below or {}), part: _put((below or {}).get(part), inner, tuple(rest), value)}
