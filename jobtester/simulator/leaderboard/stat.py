"""Decodes stats as the Leaderboard does: strict types, case-insensitive names, unknown fields dropped."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

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
    """The body does not decode. The text is close to that of Go's decoder."""


class _Integer(int):
    """A number that was written as an integer literal."""


class _Object(list[tuple[str, Any]]):
    """An object's members in their order: a name may occur twice, and Go decodes each occurrence."""


def decode_stat(body: bytes) -> dict[str, Any]:  # noqa: C901 - field by field, as Go's decoder does
    """Decode one stat. RefusedError where Go's decoder fails."""
    try:
        text = body.decode("utf-8", "go")
        value = json.loads(
            text,
            parse_int=_Integer,
            parse_float=_parse_finite,
            parse_constant=_refuse_constant,
            object_pairs_hook=_Object,
        )
    except (ValueError, RecursionError) as error:
        raise RefusedError(
            "unexpected end of JSON input" if not body.strip() else f"invalid character: {error}"
        ) from error
    if value is None:
        return _zero_stat()
    if not isinstance(value, _Object):
        raise RefusedError("json: cannot unmarshal array into Go value of type models.Stats")
    stat = _zero_stat()
    # The array behind Go's slice of errors. If the field occurs twice, the second list decodes into the elements of the
    # first, and what it leaves out keeps its earlier value.
    error_array: list[dict[str, Any]] = []
    for name, member in value:
        key = _fold_name(name)
        if key == "errors" and not member:
            error_array = []
            if member is None:
                stat[key] = None
                continue
        if member is None:
            continue
        if key in _STRINGS:
            stat[key] = _require_string(member, f"Stats.{key}")
        elif key in _NUMBERS:
            stat[key] = _require_number(member, f"Stats.{key}")
        elif key in _INTEGERS:
            stat[key] = _require_integer(member, f"Stats.{key}", 64)
        elif key == "model_is_warm":
            stat[key] = _require_bool(member)
        elif key == "errors":
            stat[key] = _decode_errors(member, error_array)
    return stat


def to_stored_form(stat: dict[str, Any]) -> dict[str, Any]:
    """Return the stat as it is stored and shown: in the server's order, most fields left out where they are zero."""
    shown = {name: stat[name] for name in _ORDER if name in _ALWAYS or stat[name]}
    if shown["errors"] is not None:
        shown["errors"] = [
            {key: value for key, value in error.items() if value or key != "message"} for error in shown["errors"]
        ]
    return shown


def is_ai(stat: dict[str, Any]) -> bool:
    """Return True if the stat counts as AI: if it has both model and pipeline."""
    return bool(stat["model"] and stat["pipeline"])


def find_storage_error(stat: dict[str, Any]) -> str:
    """Return the database's error for a stat that it cannot store, empty if it can."""
    if len(stat["orchestrator"]) > 56:
        return "ERROR: value too long for type character varying(56) (SQLSTATE 22001)"
    texts = [stat[name] for name in _STRINGS]
    texts += [entry[key] for entry in stat["errors"] or () for key in ("error_code", "message")]
    if any("\0" in text for text in texts):
        return "ERROR: unsupported Unicode escape sequence (SQLSTATE 22P05)"
    if any(len(stat[name].encode()) > 2700 for name in ("model", "pipeline")):
        return "ERROR: index row size exceeds btree version 4 maximum 2704 (SQLSTATE 54000)"
    return ""


def _zero_stat() -> dict[str, Any]:
    stat: dict[str, Any] = dict.fromkeys(_STRINGS, "") | dict.fromkeys(_NUMBERS, 0) | dict.fromkeys(_INTEGERS, 0)
    return stat | {"model_is_warm": False, "errors": None}


def _require_string(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise RefusedError(
            f"json: cannot unmarshal {_describe_type(value)} into Go struct field {field} of type string"
        )
    return _SURROGATES.sub("\ufffd", value)


def _require_number(value: object, field: str) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(
            f"json: cannot unmarshal {_describe_type(value)} into Go struct field {field} of type float64"
        )
    return float(value)


def _require_integer(value: object, field: str, bits: int) -> int:
    if not isinstance(value, _Integer) or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise RefusedError(
            f"json: cannot unmarshal {_describe_type(value)} into Go struct field {field} of type int{bits}"
        )
    return int(value)


def _require_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise RefusedError(
            f"json: cannot unmarshal {_describe_type(value)} into Go struct field Stats.model_is_warm of type bool"
        )
    return value


def _fold_name(name: str) -> str:
    """Fold a name by Unicode's simple folding, which maps only `ſ` and the Kelvin sign to a letter of ASCII."""
    return "".join({"\u017f": "s", "\u212a": "k"}.get(rune, rune.lower() if rune.isascii() else rune) for rune in name)


def _replace_invalid_byte(error: UnicodeError) -> tuple[str, int]:
    """Replace each byte that belongs to no rune, as Go does; Python's own handler replaces whole sequences."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd", error.start + 1


codecs.register_error("go", _replace_invalid_byte)


def _decode_errors(value: object, array: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Decode errors into the elements that an earlier list of the same name has left in `array`."""
    if not isinstance(value, list) or isinstance(value, _Object):
        raise RefusedError(
            f"json: cannot unmarshal {_describe_type(value)} into Go struct field Stats.errors of type []models.Error"
        )
    for index, entry in enumerate(value):
        if entry is not None and not isinstance(entry, _Object):
            raise RefusedError(
                f"json: cannot unmarshal {_describe_type(entry)} into Go struct field Stats.errors of type models.Error"
            )
        if index == len(array):
            array.append({"error_code": "", "message": "", "count": 0})
        error = array[index]
        for name, member in entry or ():
            key = _fold_name(name)
            if member is None or key not in error:
                continue
            error[key] = (
                _require_integer(member, "Error.errors.count", 64)
                if key == "count"
                else _require_string(member, f"Error.errors.{key}")
            )
    return [dict(error) for error in array[: len(value)]]


def _parse_finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number {text} is too large")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _describe_type(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return f"number {value}"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, _Object) else "array"
