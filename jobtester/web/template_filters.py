"""Format values for the pages, and make characters visible that would disguise a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from markupsafe import Markup

from jobtester.checks.registry import default_parameters
from jobtester.domain.orchestrators import shorten_address
from jobtester.domain.stream_status import STATE_WORDS
from jobtester.domain.units import format_duration, format_measure, format_runner_price
from jobtester.web.charts import draw_delays, draw_sparkline
from jobtester.web.schemas.full_results import CheckSchema

_MAX_SHORT_TEXT = 120
# Unicode has a picture for each control character; tab and line feed keep their meaning.
_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"} | {127: "\u2421"}
# Marks that change the direction of writing can make one model's name read like another's.
_DIRECTION_MARKS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF, *range(128, 160))
_VISIBLE: Mapping[int, str] = _CONTROLS | {
    code: f"\N{MATHEMATICAL LEFT ANGLE BRACKET}U+{code:04X}\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
    for code in _DIRECTION_MARKS
}


def show_control_characters(value: object) -> object:
    """Return a text with its control characters and direction marks visible; any other value unchanged."""
    if isinstance(value, Markup):
        return value.translate(_VISIBLE)
    return value.replace("\r\n", "\n").translate(_VISIBLE) if isinstance(value, str) else value


def format_instant(moment: float | None) -> str:
    """Return an instant as people read it, in UTC; empty for none."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else ""


def format_iso(moment: float) -> str:
    """Return an instant in ISO 8601, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_seconds(value: float | None) -> str:
    """Return a duration in its shortest form; empty for none."""
    return "" if value is None else format_duration(value)


def format_share(value: float | None) -> str:
    """Return a share in percent, rounded down so that 100 % is never said of less; `unknown` for none."""
    if value is None:
        return "unknown"
    return f"{int(value * 1000) / 10:g} %"


def format_wei(value: int | str) -> str:
    """Return an amount of wei with its digits in groups of three."""
    return f"{int(value):,} wei".replace(",", "\u202f")


def abbreviate(text: str) -> str:
    """Return the beginning of a text that is too long for a list."""
    return text if len(text) <= _MAX_SHORT_TEXT else f"{text[:_MAX_SHORT_TEXT]}…"


def allow_breaks(code: str) -> Markup:
    """Return a code or name in which a narrow place breaks the line after one of its words first."""
    return Markup("<wbr>").join(re.split(r"(?<=[_:/])", abbreviate(code).translate(_VISIBLE)))


def indent_json(text: str) -> str:
    """Return a JSON text indented, any other text unchanged."""
    try:
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return text


def format_bytes(count: int) -> str:
    """Return a size in its shortest form."""
    return f"{count} B" if count < 1024 else f"{count / 1024:.0f} KiB" if count < 2**20 else f"{count / 2**20:.1f} MiB"


def fit_picture(size: tuple[int, int], limits: tuple[int, int] = (320, 320)) -> Markup:
    """Return the attributes that reserve a picture's place before it is loaded; `size` and `limits` in pixels.

    A larger picture is reduced to the limits. One of unknown size gets a square.
    """
    width, height = size if all(size) else limits
    share = min(1.0, *(limit / side for limit, side in zip(limits, (width, height), strict=True)))
    return Markup('width="{}" height="{}"').format(max(1, round(width * share)), max(1, round(height * share)))


def format_measures(measures: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return what was measured of a job as names and values with their units."""
    return [format_measure(name, value) for name, value in measures.items()]


def explain_state(state: str) -> str:
    """Return what a runner's state means, empty for one that is not known."""
    return STATE_WORDS.get(state, "")


def leave_out_repeated(lines: Sequence[str], text: str) -> list[str]:
    """Return the lines that a text does not contain, whatever their case."""
    return [line for line in lines if line.lower() not in text.lower()]


def choose_parameters(check: CheckSchema) -> dict[str, Any]:
    """Return a check's parameters without those that have their default."""
    defaults = default_parameters(check.check)
    missing = object()
    return {name: value for name, value in check.parameters.items() if defaults.get(name, missing) != value}


def write_document(value: object) -> str:
    """Return a value as indented JSON."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


FILTERS: Mapping[str, Callable[..., Any]] = {
    "instant": format_instant,
    "iso": format_iso,
    "seconds": format_seconds,
    "share": format_share,
    "wei": format_wei,
    "sparkline": draw_sparkline,
    "delays": draw_delays,
    "state_words": explain_state,
    "short": shorten_address,
    "brief": abbreviate,
    "breakable": allow_breaks,
    "pretty": indent_json,
    "bytes": format_bytes,
    "picture_size": fit_picture,
    "document": write_document,
    "measures": format_measures,
    "new_to": leave_out_repeated,
    "chosen_parameters": choose_parameters,
    "runner_price": format_runner_price,
}
