"""Durations, sizes and amounts of wei, between the texts people write and plain numbers.

The rule for everything that people read, on pages and in commands:

- A duration is what format_duration makes of it, three digits and the unit without a space (`4.05s`, `610ms`, `1m30s`),
  the same form that config.toml takes.
- An amount is in wei with all its digits, an instant is UTC or has its offset, a share is in percent, rounded down.

JSON and metrics have plain numbers of seconds, and wei as decimal text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_DURATION_S = 36_500 * 86_400.0
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")

_BYTES = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_MAX_SIZE = 10**6 * 2**30
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?\s*")

_AMOUNT = re.compile(r"\s*(\d+)(?:\.(\d{1,18}))?\s*(wei|ETH|eth)?\s*")


def parse_duration(value: object) -> float:
    """Return a duration such as "1h30m" in seconds, from 0 to 100 years. Raises ValueError for anything else."""
    text = value.replace(" ", "") if isinstance(value, str) else ""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        seconds = value
    elif text.isdecimal():
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    else:
        raise ValueError('write a duration as "90s", "1h30m", "500ms", or a number of seconds')
    if seconds > _MAX_DURATION_S:
        raise ValueError("has to be at most 36500d, a hundred years")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Return a duration in the shortest usual form, such as 1h30m or 2.5s."""
    if seconds < 60:
        # Three digits round 0.9995 s up to a second; "1e+03ms" would be the alternative.
        in_seconds = seconds == 0 or seconds >= 0.9995
        return f"{seconds:.3g}s" if in_seconds else f"{seconds * 1000:.3g}ms"
    remaining, text = round(seconds), ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, remaining = divmod(remaining, size)
        text += f"{count}{unit}" if count else ""
    return text


def parse_size(value: object) -> int:
    """Return a size such as "64MiB" in bytes. Raises ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('write a size as "64MiB", "500kB" or a number of bytes')
    size = float(match[1]) * _BYTES[match[2] or "B"]
    if size > _MAX_SIZE:
        raise ValueError("has to be less than a million GiB")
    return int(size)


def parse_wei(value: object) -> int:
    """Return an amount such as "0.01 ETH" or "5000 wei" in wei. Raises ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if match is None or (match[2] and (match[3] or "wei") == "wei"):  # there is no fraction of a wei
        raise ValueError('write an amount as "0.01 ETH" or "5000 wei"')
    if (match[3] or "wei") == "wei":
        return int(match[1])
    # Digits and not floats: an amount in ETH has 18 decimals, a float 15.
    return int(match[1]) * 10**18 + int((match[2] or "").ljust(18, "0"))


def format_wei(wei: int | str | None) -> str | None:
    """Return an amount exactly, as decimal text; None where it is not known.

    Texts are returned as they are: reports that an earlier version stored hold numbers, newer ones hold texts.
    """
    return None if wei is None else str(wei)


def format_runner_price(price_wei: int | str | None, unit: str, mode: str) -> str:
    """Return a live runner's price with its unit, such as `5 wei per second`; `free` without a price."""
    if price_wei is None or int(price_wei) == 0:
        return "free"
    per = {"fixed": "session" if mode == "persistent" else "request", "seconds": "second", "": "unknown unit"}
    return f"{price_wei} wei per {per.get(unit, unit.removesuffix('s'))}"


def format_measure(name: str, value: float) -> tuple[str, str]:
    """Return the name of something measured in plain words, and its value with the unit that the name ends in."""
    for suffix, (words, form) in _MEASURE_UNITS.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix).replace("_", " ") + words, form(value)
    return name.replace("_", " "), f"{value:.3g}"


def _format_rate(value: float) -> str:
    return f"{value:.3g} per second"


def _format_percent(value: float) -> str:
    return f"{value * 100:.3g} %"


_MEASURE_UNITS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "_per_s": ("", _format_rate),
    "_fps": (" frames", _format_rate),
    "_share": (" share", _format_percent),
    "_seconds": ("", format_duration),
    "_s": ("", format_duration),
}
