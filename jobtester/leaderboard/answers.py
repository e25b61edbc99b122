"""Answers to a post, and what each means for the stat. Pure."""

from __future__ import annotations

import email.utils
import time
from dataclasses import dataclass
from enum import StrEnum

_FINAL_500 = ("22001", "22P05", "54000")  # too long, U+0000, too long for the index
_HINTS = {
    403: "; check leaderboard.secret",
    404: "; check leaderboard.url",
    413: "; the stat is too large",
}


class Fate(StrEnum):
    """What an answer to a post means for the stat."""

    STORED = "stored"
    REFUSED = "refused"
    REGION = "region"
    LATER = "later"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """The fate of one post. `retry_after_s` is what the server asks for in seconds, None if it does not."""

    fate: Fate
    problem: str = ""
    retry_after_s: float | None = None
    status: int | None = None

    @property
    def everybody(self) -> bool:
        """Tell whether every stat would be answered so: the secret or the address is wrong."""
        return self.fate is Fate.REFUSED and self.status in (301, 302, 307, 308, 401, 403, 404, 405)


def classify(status: int, text: str, retry_after: str = "", date: str = "") -> Answer:
    """Say what an answer means. The status decides: bodies of errors need not even be JSON."""
    wait, said = pause_of(retry_after, date), f"{status}: {text[:200]}"
    if status == 200:
        if text == "ok":
            return Answer(Fate.STORED, status=status)
        return Answer(Fate.UNKNOWN, f"200, but not `ok`: {text[:200]}; is leaderboard.url right?", status=status)
    if status == 400 and "invalid region" in text:
        return Answer(Fate.REGION, said, wait, status)
    if status == 500 and any(code in text for code in _FINAL_500):
        return Answer(Fate.REFUSED, said, status=status)
    if status == 429 or (status == 503 and "postgres is not configured" in text):
        return Answer(Fate.LATER, said, wait, status)
    if status == 408 or status >= 500 or status < 300:
        return Answer(Fate.UNKNOWN, said, wait, status)
    if status < 400:
        return Answer(Fate.REFUSED, f"{said}; leaderboard.url redirects, give the final address", status=status)
    return Answer(Fate.REFUSED, said + _HINTS.get(status, ""), status=status)


def pause_of(retry_after: str, date: str = "") -> float | None:
    """Read a Retry-After header, a number of seconds or a date, as seconds from now; None if it is neither.

    `date` is when the answer was given, by the same clock; ours counts where that is not said.
    """
    text = retry_after.strip()
    if not text:
        return None
    if text.isdecimal():
        return float(text)
    until, now = instant_of(text), instant_of(date)
    return max(0.0, until - (time.time() if now is None else now)) if until is not None else None


def instant_of(date: str) -> float | None:
    """Read a date as HTTP writes it, as Unix seconds; None if it is none."""
    try:
        found = email.utils.parsedate_tz(date) if date else None
        return float(email.utils.mktime_tz(found)) if found else None
    except (ValueError, OverflowError):  # a date that no calendar has
        return None
