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


class PostResult(StrEnum):
    """What an answer to a post means for the stat."""

    STORED = "stored"
    REFUSED = "refused"
    REGION = "region"
    LATER = "later"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PostAnswer:
    """The fate of one post. `retry_after_s` is what the server asks for in seconds, None if it does not."""

    result: PostResult
    problem: str = ""
    retry_after_s: float | None = None
    status: int | None = None

    @property
    def affects_all_stats(self) -> bool:
        """Tell whether every stat would be answered so: the secret or the address is wrong."""
        return self.result is PostResult.REFUSED and self.status in (301, 302, 307, 308, 401, 403, 404, 405)


def classify_answer(status: int, text: str, retry_after: str = "", date: str = "") -> PostAnswer:
    """Say what an answer means. The status decides: bodies of errors need not even be JSON."""
    wait, said = parse_retry_after(retry_after, date), f"{status}: {text[:200]}"
    if status == 200:
        if text == "ok":
            return PostAnswer(PostResult.STORED, status=status)
        return PostAnswer(
            PostResult.UNKNOWN, f"200, but not `ok`: {text[:200]}; is leaderboard.url right?", status=status
        )
    if status == 400 and "invalid region" in text:
        return PostAnswer(PostResult.REGION, said, wait, status)
    if status == 500 and any(code in text for code in _FINAL_500):
        return PostAnswer(PostResult.REFUSED, said, status=status)
    if status == 429 or (status == 503 and "postgres is not configured" in text):
        return PostAnswer(PostResult.LATER, said, wait, status)
    if status == 408 or status >= 500 or status < 300:
        return PostAnswer(PostResult.UNKNOWN, said, wait, status)
    if status < 400:
        return PostAnswer(
            PostResult.REFUSED, f"{said}; leaderboard.url redirects, give the final address", status=status
        )
    return PostAnswer(PostResult.REFUSED, said + _HINTS.get(status, ""), status=status)


def parse_retry_after(retry_after: str, date: str = "") -> float | None:
    """Read a Retry-After header, a number of seconds or a date, as seconds from now; None if it is neither.

    `date` is when the answer was given, by the same clock; ours counts where that is not said.
    """
    text = retry_after.strip()
    if not text:
        return None
    if text.isdecimal():
        return float(text)
    until, now = parse_http_date(text), parse_http_date(date)
    return max(0.0, until - (time.time() if now is None else now)) if until is not None else None


def parse_http_date(date: str) -> float | None:
    """Read a date as HTTP writes it, as Unix seconds; None if it is none."""
    try:
        found = email.utils.parsedate_tz(date) if date else None
        return float(email.utils.mktime_tz(found)) if found else None
    except (ValueError, OverflowError):  # a date that no calendar has
        return None
