"""Texts: how values are written on pages, and how texts from outside are kept from posing as something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import orjson
from markupsafe import Markup

from jobtester.domain.units import format_duration
from jobtester.web.charts import sparkline

_BRIEF = 120
_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"} | {127: "\u2421"}
_TURNING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF, *range(128, 160))
_VISIBLE: Mapping[int, str] = _CONTROLS | {
    code: f"\N{MATHEMATICAL LEFT ANGLE BRACKET}U+{code:04X}\N{MATHEMATICAL RIGHT ANGLE BRACKET}" for code in _TURNING
}


def show_control_characters(value: object) -> object:
    """Make control characters, and those that turn the direction of writing, seen instead of obeyed."""
    if isinstance(value, Markup):
        return value.translate(_VISIBLE)
    return value.replace("\r\n", "\n").translate(_VISIBLE) if isinstance(value, str) else value


def instant(moment: float | None) -> str:
    """Write an instant in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else ""


def iso(moment: float) -> str:
    """Write an instant as programs read it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(value: float | None) -> str:
    """Write a length of time."""
    return "" if value is None else format_duration(value)


def shorten_address(address: str) -> str:
    """Shorten an address so that it can still be told apart."""
    return f"{address[:8]}…{address[-4:]}" if len(address) > 14 else address


def abbreviate(text: str) -> str:
    """Give the beginning of a text that may be too long for a list."""
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]}…"


def indent_json(text: str) -> str:
    """Indent a JSON text; anything else stays as it is."""
    try:
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return text


FILTERS: Mapping[str, Callable[..., str]] = {
    "instant": instant,
    "iso": iso,
    "seconds": seconds,
    "sparkline": sparkline,
    "short": shorten_address,
    "brief": abbreviate,
    "pretty": indent_json,
}
