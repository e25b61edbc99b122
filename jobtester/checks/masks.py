"""`masks`: the answer outlines the known object in the input picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import AssetMetadata, CheckFailedError, CheckInput, Expectation, NoteCollector
from jobtester.checks.untrusted_json import find_value, parse_json, require_number, shorten
from jobtester.domain.reasons import Fault

_MAX_MASKS = 3
_LOGITS_SIDE = 256
_MAX_NUMBER_LENGTH = 32  # characters of a number in the text, more than any encoder writes
_NOT_FINITE = re.compile(r"nan|inf", re.IGNORECASE)
_SCORE_SLACK = 0.05
_PADDING = "\0\ufeff \t\r\n"  # that may come before the list


@dataclass(frozen=True, slots=True)
class Params:
    """`iou` is the lowest intersection over union of the best mask and the object's box that passes.

    A disc that fills its box has 0.785.
    """

    iou: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.iou < 1:
            raise ValueError("iou is between 0 and 1")


def missing_inputs(_params: Params, expectation: Expectation) -> str:
    """Return what the check would have to know of the picture and does not, empty if nothing."""
    picture = expectation.sent_picture
    if picture is None or len(picture.box) != 4 or not 0 < _box_area(picture) < picture.width * picture.height:
        return "needs the box of an object in the picture that is sent, in truth.toml beside it"
    return ""


def check(sample: CheckInput, params: Params) -> None:
    """Check scores, masks and logits. Raises CheckFailedError for the first thing that is wrong."""
    picture = sample.expectation.sent_picture
    if picture is None or not picture.box:
        raise CheckFailedError("no_truth", "no object is known of the picture that was sent", Fault.TESTER)
    scores = _read_scores(_read_list(sample.answer, "scores", _MAX_MASKS), sample.notes)
    # Parameters of a form are texts.
    multimask = str(sample.expectation.parameters.get("multimask_output", "")).lower()
    if multimask in ("false", "0", "f") and len(scores) != 1:
        raise CheckFailedError("count", f"the answer has {len(scores)} masks, one was requested")
    masks = _read_list(sample.answer, "masks", _MAX_MASKS * picture.width * picture.height)
    _check_shape(masks, "masks", len(scores), picture.width, picture.height)
    logits = _read_list(sample.answer, "logits", _MAX_MASKS * _LOGITS_SIDE**2)
    _check_shape(logits, "logits", len(scores), _LOGITS_SIDE, _LOGITS_SIDE)
    _check_overlap(masks[scores.index(max(scores))], picture, params.iou)


def _read_list(answer: Any, name: str, max_numbers: int) -> Any:
    """Return one of the three lists, which travel as text; servers that send a list as such are understood too."""
    value = find_value(answer, name)
    if isinstance(value, list) and len(value) <= _MAX_MASKS and all(isinstance(item, str) for item in value):
        return [_parse_list(item, name, max_numbers) for item in value]  # each mask is a text of its own
    return _parse_list(value, name, max_numbers) if isinstance(value, str) else value


def _parse_list(text: str, name: str, max_numbers: int) -> Any:
    if len(text) > max_numbers * _MAX_NUMBER_LENGTH + 1000:
        raise CheckFailedError("too_large", f"{name} has {len(text)} characters, far more than requested")
    if _NOT_FINITE.search(text):
        raise CheckFailedError("not_finite", f"{name} has values that are not numbers (nan, inf)")
    try:
        # Some servers write the list as Python does.
        return parse_json(text.lstrip(_PADDING).replace("True", "true").replace("False", "false"))
    except ValueError as error:
        raise CheckFailedError("unreadable", f"{name} is not a list written as JSON: {shorten(text, 60)}") from error


def _read_scores(value: Any, notes: NoteCollector) -> list[float]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_MASKS:
        raise CheckFailedError("count", f"scores is not a list of 1 to {_MAX_MASKS}: it is {shorten(value)}")
    scores = [require_number(score, f"scores.{index}") for index, score in enumerate(value)]
    # Scores are predictions, which may go a little over. That says nothing about the masks.
    if not all(-_SCORE_SLACK <= score <= 1 + _SCORE_SLACK for score in scores):
        raise CheckFailedError("scores", f"scores are between 0 and 1, not {scores}")
    if scores != sorted(scores, reverse=True):
        notes.add("unsorted", f"the best mask does not come first: {scores}")
    return scores


def _check_shape(value: Any, name: str, count: int, width: int, height: int) -> None:
    """Check that a value is count × height × width numbers."""
    shape = f"{count}×{height}×{width}"
    if not isinstance(value, list) or len(value) != count:
        raise CheckFailedError("shape", f"{name} is not {shape}: it is {shorten(value)}")
    for plane in value:
        if not isinstance(plane, list) or len(plane) != height:
            raise CheckFailedError("shape", f"{name} is not {shape}: one of it is {shorten(plane)}")
        for row in plane:
            if not isinstance(row, list) or len(row) != width:
                raise CheckFailedError("shape", f"{name} is not {shape}: a row is {shorten(row)}")
            if not set(map(type, row)) <= {int, float, bool}:
                raise CheckFailedError("shape", f"{name} has a row that is not all numbers")


def _check_overlap(mask: list[list[float]], picture: AssetMetadata, min_overlap: float) -> None:
    """Compare the best mask with the known box."""
    left, top, right, bottom = picture.box
    inside = outside = 0
    for y, row in enumerate(mask):
        # Above 0 is the object, in masks of 0 and 1, of 0 and 255, of booleans and of logits.
        in_row = sum(value > 0 for value in row)
        in_box = sum(value > 0 for value in row[left:right]) if top <= y < bottom else 0
        inside += in_box
        outside += in_row - in_box
    if inside + outside in (0, picture.width * picture.height):
        raise CheckFailedError("flat", "the mask covers everything" if inside else "the mask is empty")
    overlap = inside / (_box_area(picture) + outside)
    if overlap < min_overlap:
        name = picture.object or "known object"
        raise CheckFailedError(
            "object", f"the mask misses the {name}: their overlap is {overlap:.2f}, at least {min_overlap:g} expected"
        )


def _box_area(picture: AssetMetadata) -> int:
    left, top, right, bottom = picture.box
    return max(right - left, 0) * max(bottom - top, 0)
