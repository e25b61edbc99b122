"""Values of the documentation's tables: how a type, a default and a value are written in words, and a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import orjson
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from jobtester.domain.units import format_duration
from jobtester.settings import types

_KINDS: Mapping[Any, str] = {bool: "true or false", int: "integer", float: "number", str: "text", Any: "anything"}


def type_name(annotation: Any, info: FieldInfo | None = None) -> str:
    """Return in plain words what may be written."""
    alias = _alias(info) if info is not None else ""
    if alias:
        return alias
    named = next((name for name, known in _ALIASES.items() if annotation == known), "")
    if named:
        return _NAMES[named]
    origin, inner = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if annotation is SecretStr:
        return "secret"
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_name(part) for part in inner))
    if origin is list or origin is tuple:
        inside = type_name(inner[0])
        return "list of tables" if inside == "table" else f"list of {_plural(inside)}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    if hasattr(annotation, "__metadata__"):
        return type_name(annotation.__origin__)
    return _KINDS.get(annotation, str(annotation))


_ALIASES = {
    name: getattr(types, name)
    for name in (
        "Duration",
        "PositiveDuration",
        "Size",
        "Wei",
        "WebAddress",
        "SecretAddress",
        "Cron",
        "Timezone",
        "Instant",
    )
}
_NAMES = {
    "Instant": "date and time",
    "Duration": "duration",
    "PositiveDuration": "duration",
    "Size": "size",
    "Wei": "amount",
    "WebAddress": "address",
    "SecretAddress": "secret address",
    "Cron": "cron expression",
    "Timezone": "timezone",
}
_READERS: Mapping[Any, str] = {
    alias.__metadata__[0]: _NAMES[name] for name, alias in _ALIASES.items() if name != "PositiveDuration"
}


def _alias(info: FieldInfo) -> str:
    """Return the name of the kind of value, where one of `values` is the field's own type."""
    return next((_READERS[annotation] for annotation in info.metadata if annotation in _READERS), "")


def _plural(word: str) -> str:
    return {"text": "texts", "table": "tables", "integer": "integers"}.get(word, word)


def default_text(info: FieldInfo) -> str:
    """Return the default as it would be written, a dash for none."""
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None or value == "":
        return "–"
    if isinstance(value, float) and type_name(info.annotation, info) != "number":
        value = format_duration(value)
    return f"`{written(value)}`"


def written(value: object) -> str:
    """Write a value as TOML does, in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_toml_key(str(key))} = {written(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(written(item) for item in value)}]"
    return orjson.dumps(value).decode()


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key) else written(key)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    parts = text.replace("|", "\\|").replace("\n", " ").split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts) or " "


def join_lines(text: str) -> str:
    """Return a text in one line."""
    return " ".join(text.split())
