"""Media: finding the bytes of a picture, a video or a sound that an answer names, and decoding them safely."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobtester.domain.outcome import Fault
from jobtester.pipelines.checks import paths
from jobtester.pipelines.checks.sample import Sample, Wrong

MAX_ENTRIES = 16
_LONGEST_PATH = 2048  # base64 may begin with / as well, that of every JPEG does, and is longer
_INLINE = ("b64_json", "base64", "data")
_URL_SAFE = str.maketrans("-_", "+/")  # some write base64 so, or without the signs that fill it up
_OBJECT = re.compile(r"<[^>]* at 0x[0-9a-f]+>")  # as Python writes what has no name


def entries(answer: Any, path: str) -> list[Any]:
    """Give what an answer lists at a path; a single entry counts as a list of one.

    Raises Wrong for nothing at all and for more than any pipeline is asked for.
    """
    value = paths.find(answer, path)
    if value is None:
        raise Wrong("none", f"{path} is null")
    found = value if isinstance(value, list) else [value]
    if not found:
        raise Wrong("none", f"{path} is an empty list")
    if len(found) > MAX_ENTRIES:
        raise Wrong("count", f"{path} lists {len(found)}, more than was asked for")
    return found


def url(entry: Any) -> str | None:
    """Give the address that has to be fetched for an entry, None where the entry carries its bytes or names nothing."""
    named = entry.get("url") if isinstance(entry, dict) else entry
    if not isinstance(named, str) or not named.isprintable():
        return None
    path = named.startswith("/") and len(named) <= _LONGEST_PATH
    return named if path or named.startswith(("http://", "https://")) else None


def urls(answer: Any, path: str) -> list[str]:
    """Give the addresses at a path that have to be fetched, none where the answer is wrong anyway."""
    try:
        listed = entries(answer, path)
    except Wrong:
        return []
    return [named for named in map(url, listed) if named is not None]


def content(sample: Sample, entry: Any, path: str) -> bytes:
    """Give the bytes of one entry: fetched, or carried as a data: URI or base64. Raises Wrong where there are none."""
    named = url(entry)
    if named is None:
        return _inline(entry, path)
    artefact = sample.artefacts.get(named)
    if artefact is None:
        raise Wrong("count", f"{path} names more files than were asked for")
    if artefact.problem and artefact.status == 200:
        raise Wrong("too_large", f"{path}: {paths.show(named)} is {artefact.problem}")
    if artefact.problem:
        problem = "unanswered" if artefact.unsure else "unreachable"
        raise Wrong(problem, f"{path}: {paths.show(named)}: {artefact.problem}", Fault.GATEWAY)
    if not artefact.body:
        raise Wrong("empty", f"{path}: {paths.show(named)} is an empty file")
    return artefact.body


# Errors of PyAV by name, for it is loaded only where sound or video is looked at: other players may know the form.
_NOT_LEARNED = ("PatchWelcomeError", "DecoderNotFoundError", "ExperimentalError", "NotImplementedError")


@contextmanager
def decoding(what: str, content: bytes) -> Iterator[None]:
    """Turn whatever a decoder makes of strangers' bytes into Wrong `undecodable`.

    Decoders raise nearly anything for damaged files, so nearly anything is caught here; running out of memory is not.
    """
    try:
        yield
    except (Wrong, MemoryError):
        raise
    except Exception as error:
        said = str(getattr(error, "strerror", None) or error or type(error).__name__)
        reason = paths.show(_OBJECT.sub("it", said))
        if isinstance(error, NotImplementedError) or type(error).__name__ in _NOT_LEARNED:
            raise Wrong("unsupported", f"the tester cannot decode the {what}: {reason}", Fault.TESTER) from error
        raise Wrong("undecodable", f"the {what} of {len(content)} bytes cannot be decoded: {reason}") from error


def _inline(entry: Any, path: str) -> bytes:
    carried = (entry.get(key) for key in ("url", *_INLINE)) if isinstance(entry, dict) else (entry,)
    text = next(filter(None, carried), None)
    if not isinstance(text, str):
        raise Wrong("no_file", f"{path} names no file: it is {paths.show(text or entry)}")
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise Wrong("no_file", f"{path} is a data: URI without base64")
    elif isinstance(entry, dict) and text == entry.get("url"):
        raise Wrong("no_file", f"{path} is no address that can be fetched: {paths.show(text)}")
    try:
        packed = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Wrong("no_file", f"{path} is neither an address nor base64: {paths.show(text)}") from error
