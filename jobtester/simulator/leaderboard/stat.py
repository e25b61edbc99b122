"""The stat as the Leaderboard's decoder understands it: strict types, loose names, silent drops."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

_INT64 = 2**63
_STRINGS = ("region", "orchestrator", "model", "pipeline", "input_parameters", "response_payload")
_NUMBERS = ("success_rate", "round_trip_time", "seg_duration", "upload_time", "download_time", "transcode_time")
_INTEGERS = ("timestamp", "segments_sent", "segments_received")
_ALWAYS = ("region", "orchestrator", "success_rate", "round_trip_time", "errors", "timestamp")
_ORDER = (
    *_ALWAYS, "seg_duration", "segments_sent", "segments_received", "upload_time", "download_time",
    "transcode_time", "model", "model_is_warm", "pipeline", "input_parameters", "response_payload",
)  # fmt: skip
_SURROGATES = re.compile("[\ud800-\udfff]")


class RefusedError(Exception):
    """The body does not decode; the text is close to what Go's decoder says."""


class _Integer(int):
    """A number that was written as an integer literal."""


class _Object(list[tuple[str, Any]]):
    """An object's members in their order; a name may come twice, and each of them is looked at."""


def decode(body: bytes) -> dict[str, Any]:
    """Decode one stat; raises RefusedError where Go's decoder would."""
    try:
        text = body.decode("utf-8", "go")
        value = json.loads(
            text, parse_int=_Integer, parse_float=_finite, parse_constant=_constant, object_pairs_hook=_Object
        )
    except (ValueError, RecursionError) as error:
        raise RefusedError(
            "unexpected end of JSON input" if not body.strip() else f"invalid character: {error}"
        ) from error
    if value is None:
        return _zero()
    if not isinstance(value, _Object):
        raise RefusedError("json: cannot unmarshal array into Go value of type models.Stats")
    stat = _zero()
    array: list[dict[str, Any]] = []  # what lies behind the errors: a list that shrinks keeps its elements
    for name, given in value:
        key = _fold(name)
        if key == "errors" and not given:
            array = []
            if given is None:
                stat[key] = None
                continue
        if given is None:
            continue
        if key in _STRINGS:
            stat[key] = _string(given, f"Stats.{key}")
        elif key in _NUMBERS:
            stat[key] = _number(given, f"Stats.{key}")
        elif key in _INTEGERS:
            stat[key] = _integer(given, f"Stats.{key}", 64)
        elif key == "model_is_warm":
            stat[key] = _bool(given)
        elif key == "errors":
            stat[key] = _errors(given, array)
    return stat


def stored(stat: dict[str, Any]) -> dict[str, Any]:
    """Give the stat as it is kept and shown: in the server's order, zero values of most fields left out."""
    kept = {name: stat[name] for name in _ORDER if name in _ALWAYS or stat[name]}
    if kept["errors"] is not None:
        kept["errors"] = [
            {key: value for key, value in error.items() if value or key != "message"} for error in kept["errors"]
        ]
    return kept


def is_ai(stat: dict[str, Any]) -> bool:
    """Tell whether the stat counts as AI: with model and pipeline both."""
    return bool(stat["model"] and stat["pipeline"])


def unstorable(stat: dict[str, Any]) -> str:
    """Give the database's words for what it cannot keep, empty if it can."""
    if len(stat["orchestrator"]) > 56:
        return "ERROR: value too long for type character varying(56) (SQLSTATE 22001)"
    texts = [stat[name] for name in _STRINGS]
    texts += [entry[key] for entry in stat["errors"] or () for key in ("error_code", "message")]
    if any("\0" in text for text in texts):
        return "ERROR: unsupported Unicode escape sequence (SQLSTATE 22P05)"
    if any(len(stat[name].encode()) > 2700 for name in ("model", "pipeline")):
        return "ERROR: index row size exceeds btree version 4 maximum 2704 (SQLSTATE 54000)"
    return ""


def _zero() -> dict[str, Any]:
    stat: dict[str, Any] = dict.fromkeys(_STRINGS, "") | dict.fromkeys(_NUMBERS, 0) | dict.fromkeys(_INTEGERS, 0)
    return stat | {"model_is_warm": False, "errors": None}


def _string(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise RefusedError(f"json: cannot unmarshal {_kind(value)} into Go struct field {field} of type string")
    return _SURROGATES.sub("\ufffd", value)


def _number(value: object, field: str) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(f"json: cannot unmarshal {_kind(value)} into Go struct field {field} of type float64")
    return float(value)


def _integer(value: object, field: str, bits: int) -> int:
    if not isinstance(value, _Integer) or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise RefusedError(f"json: cannot unmarshal {_kind(value)} into Go struct field {field} of type int{bits}")
    return int(value)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise RefusedError(
            f"json: cannot unmarshal {_kind(value)} into Go struct field Stats.model_is_warm of type bool"
        )
    return value


def _fold(name: str) -> str:
    """Fold a name by Unicode's simple folding, by which only `ſ` and the Kelvin sign meet a letter of ASCII."""
    return "".join({"\u017f": "s", "\u212a": "k"}.get(rune, rune.lower() if rune.isascii() else rune) for rune in name)


def _one_byte(error: UnicodeError) -> tuple[str, int]:
    """Take each byte that belongs to no rune for a replacement character, as Go does."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd", error.start + 1


codecs.register_error("go", _one_byte)


def _errors(value: object, array: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Decode errors into the elements that an earlier list of the same name has left."""
    if not isinstance(value, list) or isinstance(value, _Object):
        raise RefusedError(
            f"json: cannot unmarshal {_kind(value)} into Go struct field Stats.errors of type []models.Error"
        )
    for place, entry in enumerate(value):
        if entry is not None and not isinstance(entry, _Object):
            raise RefusedError(
                f"json: cannot unmarshal {_kind(entry)} into Go struct field Stats.errors of type models.Error"
            )
        if place == len(array):
            array.append({"error_code": "", "message": "", "count": 0})
        error = array[place]
        for name, given in entry or ():
            key = _fold(name)
            if given is None or key not in error:
                continue
            error[key] = (
                _integer(given, "Error.errors.count", 64) if key == "count" else _string(given, f"Error.errors.{key}")
            )
    return [dict(error) for error in array[: len(value)]]


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number {text} is too large")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return f"number {value}"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, _Object) else "array"
