"""Received results: other testers' stats, checked as strictly as the Leaderboard does, and a little more."""

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
_KNOWN = {*_STRINGS, *_NUMBERS, *_INTEGERS, "model_is_warm", "errors"}
_MOST_ERRORS = 100
_MOST_DIGITS = 20
_DAY_S = 86_400
_BY_BYTE = "jobtester-by-byte"
_PROSE = ("input_parameters", "response_payload", "message")


class InvalidStatError(ValueError):
    """The result would be refused by the Leaderboard, or would break reads for everybody."""


@dataclass(frozen=True, slots=True)
class ExternalResult:
    """One result: its fields, the stat to forward, and whether it is of an AI or a transcoding job."""

    fields: dict[str, Any]
    stat: Stat
    kind: str


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Replace one broken byte, as Go does; Python's own handler takes several for one."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd", error.start + 1


codecs.register_error(_BY_BYTE, _replaced)


def parse_results(body: bytes) -> list[ExternalResult]:
    """Read one object or an array of them, as Go's decoder would. Raises InvalidStatError with what is wrong first."""
    document = _decoded(body)
    if isinstance(document, list) and not isinstance(document, _Members):
        if not document:
            raise InvalidStatError("an empty array")
        return [_received(one) for one in document]
    return [_received(document)]


class _Members(list[tuple[str, Any]]):
    """An object's members in their order, with every one of a name."""


def _decoded(body: bytes) -> object:
    try:
        return json.loads(
            body.decode("utf-8", _BY_BYTE), object_pairs_hook=_Members, parse_int=_integer, parse_constant=_constant
        )
    except (ValueError, RecursionError) as error:
        raise InvalidStatError(f"not JSON: {error}") from error


def _integer(literal: str) -> int | float:
    """Read a whole number; one of more digits than any integer here may have is as good as a float."""
    return int(literal) if len(literal) <= _MOST_DIGITS else float(literal)


def _constant(literal: str) -> float:
    raise ValueError(f"{literal} is not JSON")


def _received(given: object) -> ExternalResult:
    if not isinstance(given, _Members):
        raise InvalidStatError("a result has to be an object")
    fields: dict[str, Any] = {}
    errors: _Errors | None = None
    for name, value in given:
        key = _folded(name)
        if key == "errors":
            errors = _errors(value, errors)
            fields[key] = None if errors is None else errors.shown
        elif key in _KNOWN and value is not None:
            fields[key] = _checked(key, value)
    if not fields.get("region", "").strip():
        raise InvalidStatError("invalid region")
    if not fields.get("orchestrator", "").strip():
        raise InvalidStatError("orchestrator is missing")
    ai = bool(fields.get("model") or fields.get("pipeline"))
    if ai and not (fields.get("model") and fields.get("pipeline")):
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
    problem = find_problem(fields if ai else fields | {"model": "-", "pipeline": "-"})
    if problem and not (problem.startswith("success_rate") and 0 <= fields["success_rate"] <= 1):
        raise InvalidStatError(problem)
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
    return ExternalResult(fields, stat, "ai" if ai else "transcoding")


def _checked(key: str, value: object) -> object:
    """Check one field's type as Go's decoder does."""
    if key in _STRINGS:
        return _text(key, value)
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


def _text(key: str, value: object) -> str:
    """Check a string; control characters and the like are replaced as Go replaces lone surrogates."""
    if not isinstance(value, str):
        raise InvalidStatError(f"{key} has to be a string")
    if "\0" in value:
        raise InvalidStatError(f"{key} contains U+0000")
    if key in _PROSE:
        return clean_prose(value)
    return clean_label(value) if value.strip() else value and " "  # what is blank stays blank, and is refused as such


def _folded(name: str) -> str:
    """Return a field's name as Go compares it: rune by rune, so that `ſ` is `s` and `ß` is itself."""
    return name.lower().replace("\u017f", "s")


@dataclass(slots=True)
class _Errors:
    """A list as Go keeps it: `length` entries are shown, and those after it come back when the list grows again."""

    entries: list[dict[str, Any]]
    length: int

    @property
    def shown(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self.entries[: self.length]]


def _errors(value: object, earlier: _Errors | None) -> _Errors | None:
    """Read a list of errors into the `earlier` one of the same name, entry by entry, as Go's decoder does."""
    if value is None:
        return None
    if not isinstance(value, list) or isinstance(value, _Members) or len(value) > _MOST_ERRORS:
        raise InvalidStatError(f"errors has to be an array of at most {_MOST_ERRORS}")
    entries = earlier.entries if earlier is not None and value else []
    for place, entry in enumerate(value):
        if place == len(entries):
            entries.append({"error_code": "", "message": "", "count": 0})
        if entry is not None:
            _read_error(entry, entries[place])
    return _Errors(entries, len(value))


def _read_error(entry: object, into: dict[str, Any]) -> None:
    if not isinstance(entry, _Members):
        raise InvalidStatError("each of errors has to be an object")
    for name, value in entry:
        key = _folded(name)
        if key not in into or value is None:
            continue
        if key != "count":
            into[key] = _text(key, value)
        elif isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
            raise InvalidStatError("count has to be a whole number")
        else:
            into[key] = value
