"""Replace refused values by usable ones, so that the rest of a configuration can be checked too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from jobtester.settings.schema import Path, is_model, item_type, strip_optional


def fill_placeholders(
    tables: Mapping[str, Any], errors: Iterable[Mapping[str, Any]], model: type[BaseModel]
) -> dict[str, Any]:
    """Return the tables with a placeholder for each value that pydantic refused, and without unknown keys."""
    content: Any = tables
    for number, error in enumerate(errors):
        path: Path = tuple(error["loc"])
        content = _repair(content, path, model, is_unknown=error["type"] == "extra_forbidden", number=number)
    return dict(content)


def _repair(content: Any, path: Path, kind: Any, *, is_unknown: bool, number: int) -> Any:
    if not path:
        return _placeholder(kind, content, number)
    part, *rest = path
    if isinstance(content, list) and isinstance(part, int) and part < len(content):
        item = _repair(content[part], tuple(rest), item_type(kind, part), is_unknown=is_unknown, number=number)
        return [*content[:part], item, *content[part + 1 :]]
    if not isinstance(content, Mapping):
        return content
    if is_unknown and not rest:
        return {key: value for key, value in content.items() if key != part}
    repaired = _repair(content.get(str(part)), tuple(rest), item_type(kind, part), is_unknown=is_unknown, number=number)
    return {**content, part: repaired}


def _placeholder(kind: Any, refused: Any, number: int) -> Any:
    # Of a table that is its name and what it must have, so that messages still name it; of anything else the first of
    # a few values that passes. The number makes placeholders differ, since equal gateways would be an error again.
    plain = strip_optional(kind)
    if is_model(plain):
        table = refused if isinstance(refused, Mapping) else {}
        needed = [name for name, field in plain.model_fields.items() if field.is_required() or name == "name"]
        return {
            name: table[name] if name in table else _placeholder(item_type(plain, name), None, number)
            for name in needed
        }
    choices = get_args(plain) if get_origin(plain) is Literal else ()
    for value in (
        *choices,
        f"placeholder-{number}", f"http://placeholder-{number}.invalid", "@hourly", "UTC", f"0x{number:040x}",
        1, 3600, 50_000, True, {}, [], None,
    ):  # fmt: skip
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError:
            continue
        return value
    return refused
