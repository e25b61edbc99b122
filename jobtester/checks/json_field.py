"""`json`: one value of the answer exists and has the expected type and content. For pipelines without a check."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jobtester.checks import audio, image, video
from jobtester.checks.base import CheckFailedError, CheckInput
from jobtester.checks.media import entry_content, entry_url, entry_urls
from jobtester.checks.sound import decode_sound
from jobtester.checks.untrusted_json import find_value, is_number, shorten
from jobtester.domain.reasons import Fault

Type = Literal["any", "text", "number", "integer", "boolean", "list", "table", "url", "image", "video", "audio"]

_FILE_TYPES = ("image", "video", "audio")
_MIN_FRAMES = 2
_TYPE_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "any": lambda value: value is not None,
    "text": lambda value: isinstance(value, str),
    "number": is_number,
    "integer": lambda value: type(value) is int,
    "boolean": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "table": lambda value: isinstance(value, dict),
    "url": lambda value: entry_url(value) is not None,
}


@dataclass(frozen=True, slots=True)
class Params:
    """`path` is the path of the value, `is` its type: text, number, integer, boolean, list, table, url, or a file.

    A file (image, video, audio) is fetched and decoded. `equals` is the exact value, `pattern` a regular expression
    found in the text, `min_length` and `max_length` limit the length of a text, list or table.
    """

    path: str
    is_: Type = "any"
    equals: str | int | float | bool | None = None
    pattern: str = ""
    min_length: int = 0
    max_length: int = 1_000_000_000

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is not a regular expression: {error}") from error
        if not 0 <= self.min_length <= self.max_length:
            raise ValueError("min_length is at least 0 and at most max_length")


def file_urls(answer: Any, params: Params) -> list[str]:
    """Return the address of the file, if the value should be one."""
    return entry_urls(answer, params.path) if params.is_ in _FILE_TYPES else []


def load_decoders(params: Params) -> None:
    """Load the decoder that the value needs."""
    if params.is_ == "image":
        image.load_decoders()
    elif params.is_ == "video":
        video.load_decoders()
    elif params.is_ == "audio":
        audio.load_decoders()


def is_inline(params: Params) -> bool:
    """Return True if checking takes microseconds: a pattern may take for ever, and files have to be decoded."""
    return params.is_ not in _FILE_TYPES and not params.pattern


def check(sample: CheckInput, params: Params) -> None:
    """Check the value. Raises CheckFailedError for the first thing that is wrong."""
    path, value = params.path, find_value(sample.answer, params.path)
    if params.is_ in _FILE_TYPES:
        _check_file(entry_content(sample, value, path), params.is_)
        return
    if not _TYPE_CHECKS[params.is_](value):
        raise CheckFailedError("type", f"{path} is not of type {params.is_}: it is {shorten(value)}")
    # To Python, true is 1. To JSON it is not.
    is_equal = value == params.equals and isinstance(value, bool) == isinstance(params.equals, bool)
    if params.equals is not None and not is_equal:
        raise CheckFailedError("equals", f"{path} is {shorten(value)}, not {shorten(params.equals)}")
    if params.pattern and not (isinstance(value, str) and re.search(params.pattern, value)):
        raise CheckFailedError("pattern", f"{path} does not match {params.pattern!r}: it is {shorten(value)}")
    if isinstance(value, str | list | dict) and not params.min_length <= len(value) <= params.max_length:
        raise CheckFailedError("length", f"{path} is {len(value)} long, not {params.min_length} to {params.max_length}")


def _check_file(content: bytes, kind: str) -> None:
    if kind == "image":
        image.decode_image(content, larger=Fault.TESTER)
    elif kind == "video":
        # Two frames show that it is a video, and cost little of one that may be long.
        if len(video.decode_video(content, limit=_MIN_FRAMES).frames) < _MIN_FRAMES:
            raise CheckFailedError("frames", "the video has only one frame")
    else:
        decode_sound(content)
