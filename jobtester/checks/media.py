"""Media: finding the bytes of a picture, a video or a sound that an answer names, and decoding them safely."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobtester.checks.base import CheckFailedError, CheckInput
from jobtester.checks.untrusted_json import find_value, shorten
from jobtester.domain.reasons import Fault

MAX_ENTRIES = 16
_LONGEST_PATH = 2048  # base64 may begin with / as well, that of every JPEG does, and is longer
_INLINE = ("b64_json", "base64", "data")
_URL_SAFE = str.maketrans("-_", "+/")  # some write base64 so, or without the signs that fill it up
_OBJECT = re.compile(r"<[^>]* at 0x[0-9a-f]+>")  # as Python writes what has no name


def find_entries(answer: Any, path: str) -> list[Any]:
    """Give what an answer lists at a path; a single entry counts as a list of one.

    Raises CheckFailedError for nothing at all and for more than any pipeline is asked for.
    """
    value = find_value(answer, path)
    if value is None:
        raise CheckFailedError("none", f"{path} is null")
    found = value if isinstance(value, list) else [value]
    if not found:
        raise CheckFailedError("none", f"{path} is an empty list")
    if len(found) > MAX_ENTRIES:
        raise CheckFailedError("count", f"{path} lists {len(found)}, more than was asked for")
    return found


def entry_url(entry: Any) -> str | None:
    """Give the address that has to be fetched for an entry, None where the entry carries its bytes or names nothing."""
    named = entry.get("url") if isinstance(entry, dict) else entry
    if not isinstance(named, str) or not named.isprintable():
        return None
    path = named.startswith("/") and len(named) <= _LONGEST_PATH
    return named if path or named.startswith(("http://", "https://")) else None


def entry_urls(answer: Any, path: str) -> list[str]:
    """Give the addresses at a path that have to be fetched, none where the answer is wrong anyway."""
    try:
        listed = find_entries(answer, path)
    except CheckFailedError:
        return []
    return [named for named in map(entry_url, listed) if named is not None]


def entry_content(sample: CheckInput, entry: Any, path: str) -> bytes:
    """Give the bytes of one entry: fetched, or carried as a data: URI or base64.

    Raises CheckFailedError where there are none.
    """
    named = entry_url(entry)
    if named is None:
        return _inline(entry, path)
    artifact = sample.files.get(named)
    if artifact is None:
        raise CheckFailedError("count", f"{path} names more files than were asked for")
    if artifact.problem and artifact.status == 200:
        raise CheckFailedError("too_large", f"{path}: {shorten(named)} is {artifact.problem}")
    if artifact.problem:
        problem = "unanswered" if artifact.is_uncertain else "unreachable"
        raise CheckFailedError(problem, f"{path}: {shorten(named)}: {artifact.problem}", Fault.GATEWAY)
    if not artifact.body:
        raise CheckFailedError("empty", f"{path}: {shorten(named)} is an empty file")
    return artifact.body


# Errors of PyAV by name, for it is loaded only where sound or video is looked at: other players may know the form.
_NOT_LEARNED = ("PatchWelcomeError", "DecoderNotFoundError", "ExperimentalError", "NotImplementedError")


@contextmanager
def decoding(what: str, content: bytes) -> Iterator[None]:
    """Turn whatever a decoder makes of strangers' bytes into CheckFailedError `undecodable`.

    Decoders raise nearly anything for damaged files, so nearly anything is caught here; running out of memory is not.
    """
    try:
        yield
    except (CheckFailedError, MemoryError):
        raise
    except Exception as error:
        said = str(getattr(error, "strerror", None) or error or type(error).__name__)
        reason = shorten(_OBJECT.sub("it", said))
        if isinstance(error, NotImplementedError) or type(error).__name__ in _NOT_LEARNED:
            raise CheckFailedError(
                "unsupported", f"the tester cannot decode the {what}: {reason}", Fault.TESTER
            ) from error
        raise CheckFailedError(
            "undecodable", f"the {what} of {len(content)} bytes cannot be decoded: {reason}"
        ) from error


def _inline(entry: Any, path: str) -> bytes:
    carried = (entry.get(key) for key in ("url", *_INLINE)) if isinstance(entry, dict) else (entry,)
    text = next(filter(None, carried), None)
    if not isinstance(text, str):
        raise CheckFailedError("no_file", f"{path} names no file: it is {shorten(text or entry)}")
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise CheckFailedError("no_file", f"{path} is a data: URI without base64")
    elif isinstance(entry, dict) and text == entry.get("url"):
        raise CheckFailedError("no_file", f"{path} is no address that can be fetched: {shorten(text)}")
    try:
        packed = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CheckFailedError("no_file", f"{path} is neither an address nor base64: {shorten(text)}") from error
