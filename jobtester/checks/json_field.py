"""`json`: one value of the answer is there and is what it should be. For pipelines that no other check knows."""

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

_FILES = ("image", "video", "audio")
_FRAMES = 2
_IS: Mapping[str, Callable[[Any], bool]] = {
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
    """`path` leads to the value, `is` names its type: text, number, integer, boolean, list, table, url, or a file.

    A file (image, video, audio) is fetched and decoded. `equals` is the exact value, `pattern` a regular expression
    found in the text, `min_length` and `max_length` bound a text, list or table.
    """

    path: str
    is_: Type = "any"
    equals: str | int | float | bool | None = None
    pattern: str = ""
    min_length: int = 0
    max_length: int = 1_000_000_000

    def __post_init__(self) -> None:
        """Refuse an unreadable pattern and bounds that nothing fits between."""
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}") from error
        if not 0 <= self.min_length <= self.max_length:
            raise ValueError("min_length is at least 0 and at most max_length")


def file_urls(answer: Any, params: Params) -> list[str]:
    """Give the address of the file, where the value should be one."""
    return entry_urls(answer, params.path) if params.is_ in _FILES else []


def load_decoders(params: Params) -> None:
    """Load the decoders that the value needs."""
    if params.is_ == "image":
        image.load_decoders()
    elif params.is_ == "video":
        video.load_decoders()
    elif params.is_ == "audio":
        audio.load_decoders()


def is_inline(params: Params) -> bool:
    """Tell whether looking takes microseconds: a pattern may take for ever, and files have to be decoded."""
    return params.is_ not in _FILES and not params.pattern


def check(sample: CheckInput, params: Params) -> None:
    """Look at the value. Raises CheckFailedError for the first thing that is not right."""
    value = find_value(sample.answer, params.path)
    if params.is_ in _FILES:
        _check_file(entry_content(sample, value, params.path), params.is_)
        return
    if not _IS[params.is_](value):
        raise CheckFailedError("type", f"{params.path} is not of type {params.is_}: it is {shorten(value)}")
    if params.equals is not None and not _same(value, params.equals):
        raise CheckFailedError("equals", f"{params.path} is {shorten(value)}, not {shorten(params.equals)}")
    if params.pattern and not (isinstance(value, str) and re.search(params.pattern, value)):
        raise CheckFailedError("pattern", f"{params.path} does not match {params.pattern!r}: it is {shorten(value)}")
    if isinstance(value, str | list | dict) and not params.min_length <= len(value) <= params.max_length:
        raise CheckFailedError(
            "length", f"{params.path} is {len(value)} long, not {params.min_length} to {params.max_length}"
        )


def _check_file(content: bytes, kind: str) -> None:
    if kind == "image":
        image.decode_image(content, larger=Fault.TESTER)
    elif kind == "video":
        frames = video.decode_video(content, limit=_FRAMES).frames
        if len(frames) < _FRAMES:
            raise CheckFailedError("frames", "the video has no more than one frame")
    else:
        decode_sound(content)


def _same(value: Any, right: Any) -> bool:
    """Compare as JSON does: true is not 1."""
    return value == right and isinstance(value, bool) == isinstance(right, bool)
