"""External results: read other testers' stats exactly as the Leaderboard would, and refuse what would harm it.

The Leaderboard is written in Go. What its decoder accepts in its own way (names in any case, repeated keys, broken
UTF-8) is read here in the same way, so that what is shown is what is stored there.
"""

from __future__ import annotations

import codecs
import json
import math
from dataclasses import dataclass
from typing import Any

import orjson

from jobtester.domain.stats import MAX_BODY_BYTES, Stat, find_problem
from jobtester.domain.untrusted_text import clean_address, clean_label, clean_prose

_INT64 = 2**63
_STRINGS = ("region", "orchestrator", "model", "pipeline", "input_parameters", "response_payload")
_NUMBERS = ("success_rate", "round_trip_time", "seg_duration", "upload_time", "download_time", "transcode_time")
_INTEGERS = ("timestamp", "segments_sent", "segments_received")
_KNOWN_FIELDS = {*_STRINGS, *_NUMBERS, *_INTEGERS, "model_is_warm", "errors"}
_MAX_ERRORS = 100
_MAX_DIGITS = 20
_DAY_S = 86_400
_REPLACE_BY_BYTE = "jobtester-by-byte"
_PROSE = ("input_parameters", "response_payload", "message")


class InvalidStatError(ValueError):
    """The result would be refused by the Leaderboard, or would break reads for everybody."""


@dataclass(frozen=True, slots=True)
class ExternalResult:
    """One result: its fields, the stat to forward, and the job's kind, `ai` or `transcoding`."""

    fields: dict[str, Any]
    stat: Stat
    kind: str


def _replace_one_byte(error: UnicodeError) -> tuple[str, int]:
    # Go replaces each broken byte; Python's own "replace" may take several for one.
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd", error.start + 1


codecs.register_error(_REPLACE_BY_BYTE, _replace_one_byte)


def parse_results(body: bytes) -> list[ExternalResult]:
    """Return the results in one object or an array of them. Raises InvalidStatError with the first problem."""
    try:
        document: object = json.loads(
            body.decode("utf-8", _REPLACE_BY_BYTE),
            object_pairs_hook=_Members,
            # Python refuses to read integers of thousands of digits. No valid one has more than 20, so a float will do.
            parse_int=lambda digits: int(digits) if len(digits) <= _MAX_DIGITS else float(digits),
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidStatError(f"not JSON: {error}") from error
    if isinstance(document, list) and not isinstance(document, _Members):
        if not document:
            raise InvalidStatError("an empty array")
        return [_parse_result(item) for item in document]
    return [_parse_result(document)]


class _Members(list[tuple[str, Any]]):
    """An object's members in their order, also several of one name, of which Go merges some."""


def _refuse_constant(literal: str) -> float:
    raise ValueError(f"{literal} is not JSON")


def _parse_result(document: object) -> ExternalResult:
    if not isinstance(document, _Members):
        raise InvalidStatError("a result has to be an object")
    fields = _read_fields(document)
    is_ai = bool(fields.get("model") or fields.get("pipeline"))
    _check_fields(fields, is_ai=is_ai)
    body = orjson.dumps(fields)
    if len(body) > MAX_BODY_BYTES:
        raise InvalidStatError(f"larger than {MAX_BODY_BYTES} bytes")
    stat = Stat(
        body=body,
        region=fields["region"],
        orchestrator=fields["orchestrator"],
        pipeline=fields.get("pipeline", ""),
        model=fields.get("model", ""),
        timestamp=fields["timestamp"],
        round_trip_s=float(fields["round_trip_time"]),
    )
    return ExternalResult(fields, stat, "ai" if is_ai else "transcoding")


def _read_fields(members: _Members) -> dict[str, Any]:
    # As in Go, the last of several members with one name counts, unless it is null.
    fields: dict[str, Any] = {}
    errors: _ErrorList | None = None
    for name, value in members:
        key = _fold_name(name)
        if key == "errors":
            errors = _merge_errors(value, errors)
            fields[key] = None if errors is None else errors.shown
        elif key in _KNOWN_FIELDS and value is not None:
            fields[key] = _check_value(key, value)
    return fields


def _check_fields(fields: dict[str, Any], *, is_ai: bool) -> None:
    """Fill in defaults in place. Raises InvalidStatError with the first problem, in the Leaderboard's order."""
    if not fields.get("region", "").strip():
        raise InvalidStatError("invalid region")
    if not fields.get("orchestrator", "").strip():
        raise InvalidStatError("orchestrator is missing")
    if is_ai and not (fields.get("model") and fields.get("pipeline")):
        raise InvalidStatError("model and pipeline belong together; one alone breaks reads for everybody")
    if "round_trip_time" not in fields:
        raise InvalidStatError("round_trip_time is missing")
    fields.setdefault("success_rate", 0)
    if not 0 <= fields["success_rate"] <= 1:
        raise InvalidStatError("success_rate has to be from 0 to 1")
    fields["orchestrator"] = clean_address(fields["orchestrator"])
    if not fields["orchestrator"]:
        raise InvalidStatError("orchestrator has to be an address: 0x and 40 hexadecimal digits")
    fields.setdefault("errors", None)  # what the Leaderboard stores where there are none
    fields.setdefault("timestamp", 0)
    # Our own stats have a rate of 0 or 1; other testers' may lie between. Transcoding stats have no model.
    rules = fields | {"success_rate": 1} | ({} if is_ai else {"model": "-", "pipeline": "-"})
    problem = find_problem(rules)
    if problem:
        raise InvalidStatError(problem)


def _check_value(key: str, value: object) -> object:
    # The types are those that Go's decoder accepts for the field.
    if key in _STRINGS:
        return _clean_text(key, value)
    if key in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidStatError(f"{key} has to be a number")
        if not 0 <= value < _DAY_S:
            raise InvalidStatError(f"{key} has to be from 0 to a day of seconds")
        return value
    if key in _INTEGERS:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _INT64:
            raise InvalidStatError(f"{key} has to be a whole number, without a point")
        return value
    if not isinstance(value, bool):
        raise InvalidStatError("model_is_warm has to be true or false")
    return value


def _clean_text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidStatError(f"{key} has to be a string")
    if "\0" in value:
        raise InvalidStatError(f"{key} contains U+0000")
    if key in _PROSE:
        return clean_prose(value)
    return clean_label(value) if value.strip() else value and " "  # a blank stays one, and is refused as such


def _fold_name(name: str) -> str:
    # Go compares names without case, rune by rune: `ſ` is `s`, and `ß` is itself.
    return name.lower().replace("\u017f", "s")


@dataclass(slots=True)
class _ErrorList:
    """A list as Go keeps it: a shorter list of the same name hides entries, and a longer one brings them back."""

    entries: list[dict[str, Any]]
    length: int

    @property
    def shown(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self.entries[: self.length]]


def _merge_errors(value: object, earlier: _ErrorList | None) -> _ErrorList | None:
    # Go decodes a list into the `earlier` one of the same name, entry by entry, so fields of that remain.
    if value is None:
        return None
    if not isinstance(value, list) or isinstance(value, _Members) or len(value) > _MAX_ERRORS:
        raise InvalidStatError(f"errors has to be an array of at most {_MAX_ERRORS}")
    entries = earlier.entries if earlier is not None and value else []
    for index, entry in enumerate(value):
        if index == len(entries):
            entries.append({"error_code": "", "message": "", "count": 0})
        if entry is not None:
            _merge_error(entry, entries[index])
    return _ErrorList(entries, len(value))


def _merge_error(entry: object, error: dict[str, Any]) -> None:
    if not isinstance(entry, _Members):
        raise InvalidStatError("each of errors has to be an object")
    for name, value in entry:
        key = _fold_name(name)
        if key not in error or value is None:
            continue
        if key != "count":
            error[key] = _clean_text(key, value)
        elif isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
            raise InvalidStatError("count has to be a whole number")
        else:
            error[key] = value
