"""Exchanges: what was sent to a gateway and what came back, timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_FROM_A_PROXY = (502, 504)  # no gateway answers so: a proxy before it gave it up


class Ending(StrEnum):
    """How an exchange ended on the wire; one that was withdrawn never got there."""

    ANSWERED = "answered"
    TIMEOUT = "timeout"
    NO_REPLY = "no_reply"
    CUT_SHORT = "cut_short"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    ABORTED = "aborted"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to a gateway and its answer.

    `started_at` is UTC in Unix seconds. `sent` and `ended` are monotonic seconds. The round trip runs from handing the
    request to the socket to the last byte of the body; it is positive, also where nothing came back. `headers` are
    lower-case and only those that matter. `detail` explains an ending that is not an answer.
    `first_token_s` is set for streamed answers only, in seconds from `sent`.
    """

    ending: Ending
    started_at: float
    sent_monotonic: float
    ended_monotonic: float
    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    detail: str = ""
    first_token_s: float | None = None

    @property
    def round_trip_s(self) -> float:
        """Give the round trip in seconds, at least a microsecond: a zero would break the Leaderboard's scores."""
        return max(self.ended_monotonic - self.sent_monotonic, 1e-6)

    @property
    def gateway_reports_success(self) -> bool:
        """Whether the gateway itself took the job for a success, whatever its content is worth."""
        if self.ending is not Ending.ANSWERED or self.status is None or not 200 <= self.status < 300:
            return False
        return self.body.strip() not in (b"", b"null") if len(self.body) < 16 else True

    @property
    def tries_exhausted(self) -> bool:
        """Whether this is how a gateway ends when its tries run out: 503, `null`, or closed without an answer."""
        if self.ending is Ending.NO_REPLY:
            return True
        null = self.status == 200 and len(self.body) < 16 and self.body.strip() == b"null"
        return self.ending is Ending.ANSWERED and (self.status == 503 or null)

    @property
    def gateway_may_continue(self) -> bool:
        """Tell whether the gateway may still be at work for this request: we, or a proxy, left before its answer."""
        left = (Ending.TIMEOUT, Ending.TOO_LARGE, Ending.ABORTED, Ending.CUT_SHORT)
        return self.ending in left or self.status in _FROM_A_PROXY
