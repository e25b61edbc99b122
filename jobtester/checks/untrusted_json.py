"""Parse untrusted JSON, and read values along paths such as `images.0.url`."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from jobtester.checks.base import CheckFailedError

# Python has whole numbers of any size, but nothing that an answer counts or measures is this large, and converting
# one of a million digits to float or text is slow or fails.
_MAX_NUMBER = 2**64
_MAX_TABLE_KEYS = 6  # that are shown of a table


def parse_json(content: bytes | str) -> Any:
    """Return parsed JSON in UTF-8.

    Raises ValueError with a reason, also for NaN, infinities and nesting that nobody means.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number")

    # The standard library's parser, although faster ones exist: it alone raises MemoryError and RecursionError where
    # others end the process.
    try:
        return json.loads(content if isinstance(content, str) else content.decode("utf-8"), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def find_value(answer: Any, path: str) -> Any:
    """Return the value at a dotted path; whole numbers index lists, an empty path is the answer itself.

    Raises CheckFailedError `missing` with the part of the path that is not there.
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
    """Return the text at a path without blanks around it.

    Raises CheckFailedError unless it has 1 to `limit` characters.
    """
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
    """Return a finite number. Raises CheckFailedError `not_a_number` for anything else."""
    if not is_number(value):
        raise CheckFailedError("not_a_number", f"{name} is not a number: it is {shorten(value)}")
    return float(value)


def is_number(value: Any) -> bool:
    """Return True if a value is a finite number of usual size; true and false are not."""
    return (type(value) is int and abs(value) < _MAX_NUMBER) or (type(value) is float and math.isfinite(value))


def shorten(value: Any, length: int = 120) -> str:
    """Return any value as a short text for people: never the whole of something large."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        keys = _replace_surrogates(", ".join(str(key)[:30] for key in list(value)[:_MAX_TABLE_KEYS]))
        return f"a table with {keys}{' …' if len(value) > _MAX_TABLE_KEYS else ''}" if value else "an empty table"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, str):
        # Cut before blanks are joined: the text may have megabytes.
        short = " ".join(value[: length * 2].split())[:length]
        return f'"{_replace_surrogates(short)}{"…" if len(value) > length else ""}"'
    if isinstance(value, int) and abs(value) >= _MAX_NUMBER:
        return f"a number of {value.bit_length()} bits"
    return str(value)[:length]


def _replace_surrogates(text: str) -> str:
    """Return a text without lone surrogates, which JSON can carry, and files, sockets and SQLite cannot."""
    return text.encode("utf-8", "replace").decode()
