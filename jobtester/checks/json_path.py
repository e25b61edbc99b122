"""Paths: reaching into an answer, `images.0.url`, with words for what is not there."""

from __future__ import annotations

import math
from typing import Any

from jobtester.checks.base import CheckFailedError

_LARGE = 2**64


def find_value(answer: Any, path: str) -> Any:
    """Give the value at a dotted path; whole numbers index lists, an empty path is the answer itself.

    Raises CheckFailedError `missing` that names the part which is not there.
    """
    value, walked = answer, "the answer"
    for part in path.split(".") if path else ():
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise CheckFailedError("missing", f"{walked} has no {part!r}: it is {shorten(value)}")
        walked = part if walked == "the answer" else f"{walked}.{part}"
    return value


def find_text(answer: Any, path: str, *, limit: int) -> str:
    """Give the text at a path, without blanks around it: there, not empty, and within `limit` characters."""
    value = find_value(answer, path)
    if not isinstance(value, str):
        raise CheckFailedError("not_text", f"{path} is not a text: it is {shorten(value)}")
    stripped = value.strip()
    if not stripped:
        raise CheckFailedError(
            "empty", f"{path} is a text of {len(value)} blanks" if value else f"{path} is an empty text"
        )
    if len(stripped) > limit:
        raise CheckFailedError("too_long", f"{path} is longer than {limit} characters: {shorten(stripped)}")
    return stripped


def require_number(value: Any, name: str) -> float:
    """Give a finite number; anything else is Wrong `not_a_number`."""
    if not is_number(value):
        raise CheckFailedError("not_a_number", f"{name} is not a number: it is {shorten(value)}")
    return float(value)


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number of usual size; true and false are none."""
    return (type(value) is int and abs(value) < _LARGE) or (type(value) is float and math.isfinite(value))


def shorten(value: Any, length: int = 120) -> str:
    """Write any value in short, for people: never the whole of something large."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        keys = _clean(", ".join(str(key)[:30] for key in list(value)[:6]))
        return f"a table with {keys}{' …' if len(value) > 6 else ''}" if value else "an empty table"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, str):
        short = " ".join(value[: length * 2].split())[:length]
        return f'"{_clean(short)}{"…" if len(value) > length else ""}"'
    if isinstance(value, int) and abs(value) >= _LARGE:
        return f"a number of {value.bit_length()} bits"
    return str(value)[:length]


def _clean(text: str) -> str:
    """Replace halves of characters, which JSON can carry and nothing else can."""
    return text.encode("utf-8", "replace").decode()
