"""Read an instant as people write it: an ISO date and time, Unix seconds, or how long ago."""

from __future__ import annotations

from datetime import UTC, datetime

from jobtester.domain.units import parse_duration

INSTANT_HELP = "2026-05-04T10:00 (UTC, or with an offset such as +02:00), Unix seconds, or how long ago, such as 24h"
_MAX_LENGTH = 40
_MAX_UNIX_S = 253_402_300_799.0  # the last second of the year 9999


def parse_instant(text: str, now: float) -> float:
    """Return an instant in Unix seconds; without an offset it is UTC, and `24h` is a day before `now`.

    Raises ValueError for anything else.
    """
    moment = _read(text.strip(), now)
    if moment is None or not 0 <= moment <= _MAX_UNIX_S:
        raise ValueError(f"write {INSTANT_HELP}")
    return moment


def _read(text: str, now: float) -> float | None:
    if not text or len(text) > _MAX_LENGTH or not text.isascii():
        return None
    try:
        if text.replace(".", "", 1).isdigit() and len(text.partition(".")[0]) >= 9:  # fewer digits are a date
            return float(text)
        if text[-1] in "smhd":
            return now - parse_duration(text.removeprefix("-"))
        parsed = datetime.fromisoformat(text.removesuffix(" UTC"))  # as pages and commands print it
        return (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
