"""Durations: `1h30m`, `90s`, `500ms` or a number of seconds."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_S = 36_500 * 86_400.0
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(value: object) -> float:
    """Return a duration in seconds, from 0 to 100 years. Raises ValueError for anything that is none."""
    text = value.replace(" ", "") if isinstance(value, str) else ""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        seconds = value
    elif text.isdecimal():
        seconds = float(text)
    elif _WHOLE.fullmatch(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        raise ValueError('write a duration as "90s", "1h30m", "500ms", or a number of seconds')
    if seconds > _LONGEST_S:
        raise ValueError("has to be at most 36500d, a hundred years")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Write a duration in the shortest usual form, such as 1h30m or 2.5s."""
    if seconds < 60:
        whole = seconds == 0 or seconds >= 0.9995  # what three digits make a second of
        return f"{seconds:.3g}s" if whole else f"{seconds * 1000:.3g}ms"
    rest, parts = round(seconds), ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        parts += f"{count}{unit}" if count else ""
    return parts


def format_wei(wei: int | str | None) -> str | None:
    """Write an amount exactly, as decimal text; None where it is not known.

    Texts are taken as they are: reports that an earlier version kept hold numbers, newer ones hold texts.
    """
    return None if wei is None else str(wei)
