"""Find the bytes of a picture, video or sound in an answer, and decode them safely."""

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
_MAX_PATH_LENGTH = 2048  # base64 may begin with / as well, that of every JPEG does, and is longer
_INLINE_KEYS = ("b64_json", "base64", "data")
_URL_SAFE = str.maketrans("-_", "+/")
_OBJECT = re.compile(r"<[^>]* at 0x[0-9a-f]+>")  # as Python writes objects: the address is noise
# Errors of PyAV by name, for it is loaded only where sound or video is decoded. They say that this decoder cannot read
# the format, and other players may: the tester's fault, not the file's.
_UNSUPPORTED_ERRORS = ("PatchWelcomeError", "DecoderNotFoundError", "ExperimentalError", "NotImplementedError")


def find_entries(answer: Any, path: str) -> list[Any]:
    """Return what an answer lists at a path; a single entry counts as a list of one.

    Raises CheckFailedError for nothing at all and for more than any pipeline requests.
    """
    value = find_value(answer, path)
    if value is None:
        raise CheckFailedError("none", f"{path} is null")
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise CheckFailedError("none", f"{path} is an empty list")
    if len(entries) > MAX_ENTRIES:
        raise CheckFailedError("count", f"{path} lists {len(entries)}, more than requested")
    return entries


def entry_url(entry: Any) -> str | None:
    """Return the address to fetch for an entry, None if the entry carries its bytes or names nothing."""
    url = entry.get("url") if isinstance(entry, dict) else entry
    if not isinstance(url, str) or not url.isprintable():
        return None
    is_path = url.startswith("/") and len(url) <= _MAX_PATH_LENGTH
    return url if is_path or url.startswith(("http://", "https://")) else None


def entry_urls(answer: Any, path: str) -> list[str]:
    """Return the addresses to fetch at a path, none if the answer is wrong anyway."""
    try:
        entries = find_entries(answer, path)
    except CheckFailedError:
        return []
    return [url for url in map(entry_url, entries) if url is not None]


def entry_content(sample: CheckInput, entry: Any, path: str) -> bytes:
    """Return the bytes of one entry: fetched, or carried as a data: URI or base64.

    Raises CheckFailedError if there are none.
    """
    url = entry_url(entry)
    if url is None:
        return _decode_inline(entry, path)
    file = sample.files.get(url)
    if file is None:
        raise CheckFailedError("count", f"{path} names more files than requested")
    # With a status of 200 the file is there, and what is wrong with it is its author's doing. Without one, it is
    # the gateway's, which keeps the files and serves them.
    if file.problem and file.status == 200:
        raise CheckFailedError("too_large", f"{path}: {shorten(url)} is {file.problem}")
    if file.problem:
        problem = "unanswered" if file.is_uncertain else "unreachable"
        raise CheckFailedError(problem, f"{path}: {shorten(url)}: {file.problem}", Fault.GATEWAY)
    if not file.body:
        raise CheckFailedError("empty", f"{path}: {shorten(url)} is an empty file")
    return file.body


def _decode_inline(entry: Any, path: str) -> bytes:
    values = (entry.get(key) for key in ("url", *_INLINE_KEYS)) if isinstance(entry, dict) else (entry,)
    text = next(filter(None, values), None)
    if not isinstance(text, str):
        raise CheckFailedError("no_file", f"{path} names no file: it is {shorten(text or entry)}")
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise CheckFailedError("no_file", f"{path} is a data: URI without base64")
    elif isinstance(entry, dict) and text == entry.get("url"):
        raise CheckFailedError("no_file", f"{path} is not an address that can be fetched: {shorten(text)}")
    try:
        # Some encoders break lines, use the alphabet that is safe in URLs, or leave out the padding.
        packed = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CheckFailedError("no_file", f"{path} is neither an address nor base64: {shorten(text)}") from error


@contextmanager
def decoding(kind: str, content: bytes) -> Iterator[None]:
    """Turn whatever a decoder raises for strangers' bytes, a `kind` of file, into CheckFailedError `undecodable`."""
    # Decoders raise nearly anything for damaged files, so nearly anything is caught here. Running out of memory is
    # not: that says something about the limit, and nothing about the file.
    try:
        yield
    except (CheckFailedError, MemoryError):
        raise
    except Exception as error:
        message = str(getattr(error, "strerror", None) or error or type(error).__name__)
        reason = shorten(_OBJECT.sub("it", message))
        if isinstance(error, NotImplementedError) or type(error).__name__ in _UNSUPPORTED_ERRORS:
            raise CheckFailedError(
                "unsupported", f"the tester cannot decode the {kind}: {reason}", Fault.TESTER
            ) from error
        raise CheckFailedError(
            "undecodable", f"the {kind} of {len(content)} bytes cannot be decoded: {reason}"
        ) from error
