"""Exchanges: what is sent for a job and what came back, timed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import quote

_PROXY_STATUSES = (502, 504)  # no gateway sends them: a proxy before it gave up waiting


class Ending(StrEnum):
    """How an exchange ended."""

    ANSWERED = "answered"  # the body came to its end, whatever the status
    TIMEOUT = "timeout"
    NO_REPLY = "no_reply"  # the gateway closed the connection without an answer
    CUT_SHORT = "cut_short"  # the connection broke, or the answer is not HTTP
    REFUSED = "refused"  # there was no connection to the gateway
    TOO_LARGE = "too_large"
    ABORTED = "aborted"  # the tester stops
    WITHDRAWN = "withdrawn"  # the tester took the job back before it was sent


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """The request of one timed job: a POST of `body`, or a GET where that is None.

    `url` is encoded: a whole URL, or a path below the URL of the gateway that it goes to. The exchange ends after
    `timeout_s` seconds, or after `max_bytes` of the response. With `first_token`, for streamed responses, the exchange
    also has the time until the first bytes that match it.

    A job that is stopped is not withdrawn before a request that `is_follow_up`: an earlier one of it has been served.
    One that `outlives_abort` goes on to its own end when jobs are aborted.
    """

    url: str
    body: bytes | None
    job_id: str
    timeout_s: float
    max_bytes: int
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    first_token: re.Pattern[bytes] | None = None
    is_follow_up: bool = False
    outlives_abort: bool = False

    @property
    def url_with_query(self) -> str:
        """Return the URL with its query."""
        # Quoted here and passed as encoded: yarl would leave the slashes and colons of a service URI as they are.
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in self.query.items())
        return f"{self.url}?{query}" if query else self.url


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request as it left, without its body: `url` and `headers` have their secrets masked."""

    method: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to a gateway and its answer.

    `started_at` is UTC in Unix seconds. `sent_monotonic` is when the request was handed to the socket,
    `ended_monotonic` when the last byte of the body arrived, both in monotonic seconds. `headers` are lower-case, and
    only those that matter. `detail` explains an ending that is not an answer. `first_token_s` is set for streamed
    answers only, `first_byte_s` where an answer began, both in seconds from `sent_monotonic`. `connect_s` is the time
    before that, in which the name was resolved and the connection opened.
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
    connect_s: float | None = None
    first_byte_s: float | None = None
    request: SentRequest | None = None

    @property
    def round_trip_s(self) -> float:
        """Return the round trip in seconds, at least a microsecond, also where nothing came back."""
        # The Leaderboard divides by the round trip, so a zero would break its scores.
        return max(self.ended_monotonic - self.sent_monotonic, 1e-6)

    def begun_earlier(self, seconds: float) -> Exchange:
        """Return the exchange with a round trip that is longer by what the peer took before it, in seconds."""
        if not seconds:
            return self
        return replace(
            self,
            sent_monotonic=self.sent_monotonic - seconds,
            first_token_s=None if self.first_token_s is None else self.first_token_s + seconds,
            first_byte_s=None if self.first_byte_s is None else self.first_byte_s + seconds,
        )

    @property
    def gateway_reports_success(self) -> bool:
        """Return True if the gateway itself counts the job as a success, whatever the content is worth."""
        if self.ending is not Ending.ANSWERED or self.status is None or not 200 <= self.status < 300:
            return False
        return self.body.strip() not in (b"", b"null") if len(self.body) < 16 else True

    @property
    def tries_exhausted(self) -> bool:
        """Return True if a gateway ends so when its tries run out: 503, `null`, or closed without an answer."""
        if self.ending is Ending.NO_REPLY:
            return True
        is_null = self.status == 200 and len(self.body) < 16 and self.body.strip() == b"null"
        return self.ending is Ending.ANSWERED and (self.status == 503 or is_null)

    @property
    def gateway_may_continue(self) -> bool:
        """Return True if the gateway may still work on this request: the tester or a proxy left before its answer."""
        left = (Ending.TIMEOUT, Ending.TOO_LARGE, Ending.ABORTED, Ending.CUT_SHORT)
        return self.ending in left or self.status in _PROXY_STATUSES
