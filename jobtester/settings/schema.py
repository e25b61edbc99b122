"""The shape of settings: find the type that the models declare for a key path."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

Path = tuple[str | int, ...]


def strip_optional(annotation: Any) -> Any:
    """Return a type without its metadata and without `| None`."""
    while True:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            annotation = arguments[0]
        elif (
            origin in (Union, types.UnionType)
            and len(others := [argument for argument in arguments if argument is not type(None)]) == 1
        ):
            annotation = others[0]
        else:
            return annotation


def is_model(annotation: Any) -> bool:
    """Return True if a type is a table whose keys are declared."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def is_list(annotation: Any) -> bool:
    """Return True if a type is a list."""
    return get_origin(annotation) is list


def is_free(annotation: Any) -> bool:
    """Return True if any value is allowed, as in the tables of pipelines."""
    return annotation is Any


def is_table(annotation: Any) -> bool:
    """Return True if a type is a table, of declared keys or of any."""
    return is_model(annotation) or get_origin(annotation) is dict


def item_type(annotation: Any, part: str | int) -> Any:
    """Return the type of a key of a table or of a list's items; Any for an unknown key, None below a single value."""
    annotation = strip_optional(annotation)
    if is_model(annotation):
        field = annotation.model_fields.get(str(part))
        return Any if field is None else Annotated[field.annotation, field]
    if get_origin(annotation) in (list, dict):
        return get_args(annotation)[-1]
    return Any if is_free(annotation) else None


def type_at(annotation: Any, path: Path) -> Any:
    """Return the type of a key path."""
    for part in path:
        annotation = item_type(annotation, part)
    return annotation


def iterate_key_paths(model: type[BaseModel], prefix: Path = ()) -> Iterator[Path]:
    """Yield the path of every declared key, with 0 for the items of a list."""
    for name, field in model.model_fields.items():
        path, annotation = (*prefix, name), strip_optional(field.annotation)
        yield path
        if is_list(annotation) and is_model(strip_optional(get_args(annotation)[0])):
            path, annotation = (*path, 0), strip_optional(get_args(annotation)[0])
        if is_model(annotation):
            yield from iterate_key_paths(annotation, path)


def format_path(path: Path) -> str:
    """Return a key path as people write it: `gateways[0].url`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def deep_merge(base: Any, override: Any) -> Any:
    """Return `base` with `override` merged into it: tables key by key, at any depth; anything else is replaced."""
    if isinstance(base, Mapping) and isinstance(override, Mapping):
        return {**base, **{key: deep_merge(base.get(key), value) for key, value in override.items()}}
    return override


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return "; did you mean …?" with the candidate most like `name`, or an empty text if none is alike."""
    spellings = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), spellings, n=1, cutoff=0.65)
    return f"; did you mean {spellings[close[0]]}?" if close else ""
