"""Define the input of a check and the error that reports what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobtester.domain.reasons import Fault, Note

_MAX_PARAMETER = 10**18
_SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")
_WHOLE_NUMBER = re.compile(r"\s*-?\d{1,18}\s*")


class CheckFailedError(Exception):
    """A check did not pass: a short `problem` code, a sentence for people, and who is at fault."""

    def __init__(self, problem: str, message: str, fault: Fault = Fault.ORCHESTRATOR) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message
        self.fault = fault


@dataclass(frozen=True, slots=True)
class AssetMetadata:
    """What is known of a test input. Sizes and `box` [x1, y1, x2, y2] in pixels, `duration_s` in seconds.

    `pixels` is the SHA-256 of a picture's decoded RGB values, by which it is recognized in any file format.
    """

    sha256: str = ""
    pixels: str = ""
    width: int = 0
    height: int = 0
    duration_s: float = 0.0
    transcript: str = ""
    caption_words: tuple[str, ...] = ()
    object: str = ""
    box: tuple[int, ...] = ()
    point: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file that an answer names, as fetched: `problem` says why there is no usable body.

    `is_uncertain` means that neither a status nor a refusal came, so that the tester's own network may be at fault.
    """

    url: str
    status: int | None = None
    body: bytes = b""
    problem: str = ""
    is_uncertain: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One check with its parameters, an instance of the `Params` of the check's module."""

    name: str
    params: Any


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a right answer to one request looks like: the checks, the request's parameters, the metadata of its inputs.

    `is_streamed` is true if the request asks for a stream.
    """

    checks: tuple[Check, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, AssetMetadata] = field(default_factory=dict)
    is_streamed: bool = False

    def find_number(self, *names: str) -> float | None:
        """Return the first of these parameters that is a number of usual size, or a text that is a whole number."""
        for name in names:
            value = self.parameters.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_PARAMETER:
                return value
            # Fields of a form are texts, whatever they mean.
            if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
                return int(value)
        return None

    @property
    def requested_size(self) -> tuple[int, int] | None:
        """Return the requested width and height, given as `width` and `height` or as OpenAI's `size`."""
        width, height = self.find_number("width"), self.find_number("height")
        if width is not None and height is not None:
            return int(width), int(height)
        size = _SIZE.fullmatch(str(self.parameters.get("size", "")))
        return (int(size[1]), int(size[2])) if size else None

    @property
    def sent_picture(self) -> AssetMetadata | None:
        """Return the metadata of the picture in the request, None if there is none."""
        return next((metadata for metadata in self.inputs.values() if metadata.width), None)

    @property
    def sent_speech(self) -> AssetMetadata | None:
        """Return the metadata of the speech in the request, None if there is none."""
        return next((metadata for metadata in self.inputs.values() if metadata.transcript), None)


class NoteCollector:
    """Collects the notes of one check: the first of each code, since a thousand chunks may be odd in the same way."""

    def __init__(self) -> None:
        self._messages: dict[str, str] = {}

    def add(self, code: str, message: str) -> None:
        """Record an oddity that changes no outcome.

        `code` becomes a label of metrics, so it is never taken from an answer.
        """
        self._messages.setdefault(code, message)

    def for_check(self, check: str) -> tuple[Note, ...]:
        """Return the collected notes as those of a check."""
        return tuple(Note(check, code, message) for code, message in self._messages.items())


@dataclass(frozen=True, slots=True)
class CheckInput:
    """One answer to check: parsed, with the fetched files by their URL, and a collector for notes."""

    answer: Any
    expectation: Expectation = Expectation()
    files: Mapping[str, FetchedFile] = field(default_factory=dict)
    notes: NoteCollector = field(default_factory=NoteCollector, compare=False)
