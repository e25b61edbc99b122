"""Received results: other testers' stats, checked as strictly as the Leaderboard does, and a little more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import orjson

from jobtester.domain import stats
from jobtester.domain.stats import Stat

_INT64 = 2**63
_STRINGS = ("region", "orchestrator", "model", "pipeline", "input_parameters", "response_payload")
_NUMBERS = ("success_rate", "round_trip_time", "seg_duration", "upload_time", "download_time", "transcode_time")
_INTEGERS = ("timestamp", "segments_sent", "segments_received")
_KNOWN = {*_STRINGS, *_NUMBERS, *_INTEGERS, "model_is_warm", "errors"}
_MOST_ERRORS = 100


class UnfitError(ValueError):
    """The result would be refused by the Leaderboard, or would break reads for everybody."""


@dataclass(frozen=True, slots=True)
class Received:
    """One result: its fields, the stat to forward, and whether it is of an AI or a transcoding job."""

    fields: dict[str, Any]
    stat: Stat
    kind: str


def read(body: bytes) -> list[Received]:
    """Read one object or an array of them. Raises UnfitError with the first thing that is wrong."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnfitError(f"not JSON: {error}") from error
    if isinstance(document, list):
        if not document:
            raise UnfitError("an empty array")
        return [_received(one) for one in document]
    return [_received(document)]


def _received(given: object) -> Received:
    if not isinstance(given, dict):
        raise UnfitError("a result has to be an object")
    fields: dict[str, Any] = {}
    for name, value in given.items():
        key = name.lower()
        if key in _KNOWN and value is not None:
            fields[key] = _checked(key, value)
    for key in ("region", "orchestrator"):
        if not fields.get(key, "").strip():
            raise UnfitError(f"{key} is missing")
    ai = bool(fields.get("model") or fields.get("pipeline"))
    if ai and not (fields.get("model") and fields.get("pipeline")):
        raise UnfitError("model and pipeline belong together; one alone breaks reads for everybody")
    if "round_trip_time" not in fields:
        raise UnfitError("round_trip_time is missing")
    fields.setdefault("success_rate", 0)
    if not 0 <= fields["success_rate"] <= 1:
        raise UnfitError("success_rate has to be from 0 to 1")
    fields["orchestrator"] = fields["orchestrator"].strip().lower()
    fields.setdefault("errors", [])
    fields.setdefault("timestamp", 0)
    problem = stats.problem_of(fields if ai else fields | {"model": "-", "pipeline": "-"})
    if problem and not (problem.startswith("success_rate") and 0 <= fields["success_rate"] <= 1):
        raise UnfitError(problem)
    body = orjson.dumps(fields)
    if len(body) > stats.MAX_BODY:
        raise UnfitError(f"larger than {stats.MAX_BODY} bytes")
    stat = Stat(
        body=body,
        region=fields["region"],
        orchestrator=fields["orchestrator"],
        pipeline=fields.get("pipeline", ""),
        model=fields.get("model", ""),
        timestamp=fields["timestamp"],
        round_trip_s=float(fields["round_trip_time"]),
    )
    return Received(fields, stat, "ai" if ai else "transcoding")


def _checked(key: str, value: object) -> object:
    """Check one field's type as Go's decoder does."""
    if key in _STRINGS:
        if not isinstance(value, str):
            raise UnfitError(f"{key} has to be a string")
        if "\0" in value:
            raise UnfitError(f"{key} contains U+0000")
        return value
    if key in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UnfitError(f"{key} has to be a number")
        if value < 0:
            raise UnfitError(f"{key} is below 0")
        return value
    if key in _INTEGERS:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _INT64:
            raise UnfitError(f"{key} has to be a whole number, without a point")
        return value
    if key == "model_is_warm":
        if not isinstance(value, bool):
            raise UnfitError("model_is_warm has to be true or false")
        return value
    return _errors(value)


def _errors(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > _MOST_ERRORS:
        raise UnfitError(f"errors has to be an array of at most {_MOST_ERRORS}")
    found = []
    for entry in value:
        if not isinstance(entry, dict):
            raise UnfitError("each of errors has to be an object")
        named = {name.lower(): inner for name, inner in entry.items() if inner is not None}
        code, message, count = named.get("error_code", ""), named.get("message", ""), named.get("count", 0)
        if not isinstance(code, str) or not isinstance(message, str):
            raise UnfitError("error_code and message have to be strings")
        if isinstance(count, bool) or not isinstance(count, int) or not -_INT64 <= count < _INT64:
            raise UnfitError("count has to be a whole number")
        if "\0" in code or "\0" in message:
            raise UnfitError("errors contain U+0000")
        found.append({"error_code": code, "message": message, "count": count})
    return found
