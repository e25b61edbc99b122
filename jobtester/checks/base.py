"""Samples: what a check looks at, what it may expect, and how it says that something is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobtester.domain.reasons import Fault, Note

_LARGE = 10**18
_SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")
_WHOLE = re.compile(r"\s*-?\d{1,18}\s*")


class CheckFailedError(Exception):
    """What a check found: a short `problem` code, a sentence for people, and at whose door it lies."""

    def __init__(self, problem: str, message: str, fault: Fault = Fault.ORCHESTRATOR) -> None:
        """Keep all three."""
        super().__init__(message)
        self.problem = problem
        self.message = message
        self.fault = fault


@dataclass(frozen=True, slots=True)
class AssetMetadata:
    """What is known of a test input. Sizes and `box` [x1, y1, x2, y2] in pixels, `duration_s` in seconds.

    `pixels` is the SHA-256 of a picture's decoded RGB values, by which it is recognized however it is written.
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

    `unsure` means that no status and no refusal came, so that the fault may be in the tester's own network.
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
    """What a right answer to one request looks like: the checks, what was asked for, what is known of the inputs."""

    checks: tuple[Check, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, AssetMetadata] = field(default_factory=dict)
    is_streamed: bool = False

    def find_number(self, *names: str) -> float | None:
        """Give the first of these parameters that is a number of usual size, or a text that is a whole one."""
        for name in names:
            value = self.parameters.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGE:
                return value
            if isinstance(value, str) and _WHOLE.fullmatch(value):
                return int(value)
        return None

    @property
    def requested_size(self) -> tuple[int, int] | None:
        """Give the width and height that were asked for, as `width` and `height` or OpenAI's `size`."""
        width, height = self.find_number("width"), self.find_number("height")
        if width is not None and height is not None:
            return int(width), int(height)
        named = _SIZE.fullmatch(str(self.parameters.get("size", "")))
        return (int(named[1]), int(named[2])) if named else None

    @property
    def sent_picture(self) -> AssetMetadata | None:
        """Give what is known of the picture that was sent, None if there was none."""
        return next((truth for truth in self.inputs.values() if truth.width), None)

    @property
    def sent_speech(self) -> AssetMetadata | None:
        """Give what is known of the speech that was sent, None if there was none."""
        return next((truth for truth in self.inputs.values() if truth.transcript), None)


class NoteCollector:
    """Collects the notes of one check: the first of each code, since a thousand chunks may be odd in one way."""

    def __init__(self) -> None:
        """Start without any."""
        self._messages: dict[str, str] = {}

    def add(self, code: str, message: str) -> None:
        """Note an oddity that changes no outcome. `code` is a literal of the program: it is a label of the metrics."""
        self._messages.setdefault(code, message)

    def for_check(self, check: str) -> tuple[Note, ...]:
        """Return what was collected, as the notes of a check."""
        return tuple(Note(check, code, message) for code, message in self._messages.items())


@dataclass(frozen=True, slots=True)
class CheckInput:
    """One answer to look at: parsed, with the artifacts it names by their URL.

    `notes` collects what is odd about it and changes no outcome.
    """

    answer: Any
    expectation: Expectation = Expectation()
    files: Mapping[str, FetchedFile] = field(default_factory=dict)
    notes: NoteCollector = field(default_factory=NoteCollector, compare=False)
