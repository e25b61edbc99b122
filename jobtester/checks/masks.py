"""`masks`: the answer outlines the known object of the picture that was sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import AssetMetadata, CheckFailedError, CheckInput, Expectation, NoteCollector
from jobtester.checks.untrusted_json import find_value, parse_json, require_number, shorten
from jobtester.domain.reasons import Fault

_MAX_MASKS = 3
_LOGITS_SIDE = 256
_NUMBER_LENGTH = 32  # characters that a number in the text may take, more than any maker writes
_NOT_FINITE = re.compile(r"nan|inf", re.IGNORECASE)
_SCORE_SLACK = 0.05
_BEGIN = "\0\ufeff \t\r\n"  # what may come before a text and belongs to no part of it

Row = list[float]


@dataclass(frozen=True, slots=True)
class Params:
    """`iou` is the least overlap of the best mask with the object's box, as area of both by area of either.

    A disc in its box reaches 0.785.
    """

    iou: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a bound that nothing can reach."""
        if not 0 < self.iou < 1:
            raise ValueError("iou is between 0 and 1")


def missing_inputs(_params: Params, expectation: Expectation) -> str:
    """Say what has to be known of the picture."""
    picture = expectation.sent_picture
    if picture is None or len(picture.box) != 4 or not 0 < _area(picture) < picture.width * picture.height:
        return "needs the box of an object in the picture that is sent, in truth.toml beside it"
    return ""


def check(sample: CheckInput, params: Params) -> None:
    """Look at scores, masks and logits. Raises CheckFailedError for the first thing that is not right."""
    truth = sample.expectation.sent_picture
    if truth is None or not truth.box:
        raise CheckFailedError("no_truth", "no object is known of the picture that was sent", Fault.TESTER)
    scores = _scores(_parsed(sample.answer, "scores", _MAX_MASKS), sample.notes)
    if _single(sample) and len(scores) != 1:
        raise CheckFailedError("count", f"{len(scores)} masks came, one was asked for")
    masks = _parsed(sample.answer, "masks", _MAX_MASKS * truth.width * truth.height)
    _check_shape(masks, "masks", len(scores), truth.width, truth.height)
    logits = _parsed(sample.answer, "logits", _MAX_MASKS * _LOGITS_SIDE**2)
    _check_shape(logits, "logits", len(scores), _LOGITS_SIDE, _LOGITS_SIDE)
    _check_object(masks[scores.index(max(scores))], truth, params.iou)


def _parsed(answer: Any, name: str, numbers: int) -> Any:
    """Read one of the three lists, which travel as text; makers that send a list as such are understood too."""
    value = find_value(answer, name)
    if isinstance(value, list) and len(value) <= _MAX_MASKS and all(isinstance(one, str) for one in value):
        return [_read(one, name, numbers) for one in value]  # each mask as a text of its own
    return _read(value, name, numbers) if isinstance(value, str) else value


def _read(value: str, name: str, numbers: int) -> Any:
    if len(value) > numbers * _NUMBER_LENGTH + 1000:
        raise CheckFailedError("too_large", f"{name} has {len(value)} characters, far more than were asked for")
    if _NOT_FINITE.search(value):
        raise CheckFailedError("not_finite", f"{name} has numbers that are none (nan, inf)")
    try:
        return parse_json(value.lstrip(_BEGIN).replace("True", "true").replace("False", "false"))
    except ValueError as error:
        raise CheckFailedError("unreadable", f"{name} is no list written as JSON: {shorten(value, 60)}") from error


def _scores(scores: Any, notes: NoteCollector) -> list[float]:
    """Read the scores; being a little out of range or in another order changes nothing about the masks."""
    if not isinstance(scores, list) or not 1 <= len(scores) <= _MAX_MASKS:
        raise CheckFailedError("count", f"scores is no list of 1 to {_MAX_MASKS}: it is {shorten(scores)}")
    read = [require_number(score, f"scores.{index}") for index, score in enumerate(scores)]
    if not all(-_SCORE_SLACK <= score <= 1 + _SCORE_SLACK for score in read):
        raise CheckFailedError("scores", f"scores are between 0 and 1, not {read}")
    if read != sorted(read, reverse=True):
        notes.add("unsorted", f"the best mask does not come first: {read}")
    return read


def _single(sample: CheckInput) -> bool:
    return str(sample.expectation.parameters.get("multimask_output", "")).lower() in ("false", "0", "f")


def _check_shape(value: Any, name: str, count: int, width: int, height: int) -> None:
    """Check that a value is count × height × width numbers."""
    wanted = f"{count}×{height}×{width}"
    if not isinstance(value, list) or len(value) != count:
        raise CheckFailedError("shape", f"{name} is not {wanted}: it is {shorten(value)}")
    for plane in value:
        if not isinstance(plane, list) or len(plane) != height:
            raise CheckFailedError("shape", f"{name} is not {wanted}: one of it is {shorten(plane)}")
        for row in plane:
            if not isinstance(row, list) or len(row) != width:
                raise CheckFailedError("shape", f"{name} is not {wanted}: a row is {shorten(row)}")
            if not set(map(type, row)) <= {int, float, bool}:
                raise CheckFailedError("shape", f"{name} has a row that is not all numbers")


def _check_object(mask: list[Row], truth: AssetMetadata, least: float) -> None:
    """Compare the best mask with the known box; above 0 is the object, with and without logits."""
    left, top, right, bottom = truth.box
    inside = outside = 0
    for y, row in enumerate(mask):
        hit = sum(value > 0 for value in row)
        within = sum(value > 0 for value in row[left:right]) if top <= y < bottom else 0
        inside += within
        outside += hit - within
    total = truth.width * truth.height
    if inside + outside in (0, total):
        raise CheckFailedError("flat", "the mask covers everything" if inside else "the mask is empty")
    overlap = inside / (_area(truth) + outside)
    if overlap < least:
        name = truth.object or "known object"
        raise CheckFailedError(
            "object", f"the mask misses the {name}: their overlap is {overlap:.2f}, at least {least:g} expected"
        )


def _area(truth: AssetMetadata) -> int:
    left, top, right, bottom = truth.box
    return max(right - left, 0) * max(bottom - top, 0)
