"""What readers and writers of trickle channels share: how requests are sent, and why a channel ended."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import aiohttp

from jobtester.domain.untrusted_text import clean_prose
from jobtester.http import explain_connection_error, read_bounded

SEQUENCE, LATEST, CLOSED, RESET = "Lp-Trickle-Seq", "Lp-Trickle-Latest", "Lp-Trickle-Closed", "Lp-Trickle-Reset"
GONE = 470
# Whatever can stand against a request; what it is becomes the reason of the channel's end.
REQUEST_ERRORS = (OSError, aiohttp.ClientError, TimeoutError, ValueError)

_MAX_ERROR_BYTES = 1_000
_MAX_ERROR_CHARS = 200
_NUMBER = re.compile(r"-1|[0-9]{1,15}")

EndCode = Literal["finished", "closed", "missing", "refused", "broken", "stalled", "invalid", "limit"]


class OpenRequest(Protocol):
    """Opens requests within the address guard; a response is there when its headers are."""

    def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: AsyncIterable[bytes] | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Return a context in which the response is read. Entering it raises one of REQUEST_ERRORS."""


@dataclass(frozen=True, slots=True)
class ChannelEnd:
    """Why reading or writing came to its end, in words.

    `code` is `finished` (all is written), `closed` (by the other side), `missing` (no such channel), `refused` (another
    status than the protocol knows), `broken` (connection), `stalled` (no byte is taken, or no answer comes), `invalid`
    (the server contradicts itself) or `limit` (of size, number or time, set by the caller).
    """

    code: EndCode
    message: str

    @classmethod
    def from_error(cls, error: BaseException, url: str) -> ChannelEnd:
        """Return the end by a request that failed."""
        return cls("broken", clean_prose(explain_connection_error(error, url), _MAX_ERROR_CHARS))

    @classmethod
    def from_missing(cls, *, is_first: bool) -> ChannelEnd:
        """Return the end by status 404: the channel never was there, or it was closed between two segments."""
        if is_first:
            return cls("missing", "the orchestrator knows no such channel")
        return cls.closed()

    @classmethod
    def closed(cls) -> ChannelEnd:
        """Return the end that the other side makes."""
        return cls("closed", "the other side closed the channel")


async def describe_refusal(response: aiohttp.ClientResponse) -> str:
    """Return status and text of a response that the protocol does not know."""
    try:
        body = await read_bounded(response.content, _MAX_ERROR_BYTES)
    except REQUEST_ERRORS:
        body = b""
    text = clean_prose(body.decode("utf-8", "replace"), _MAX_ERROR_CHARS)
    return f"the orchestrator answers status {response.status}" + (f": {text}" if text else "")


def parse_number(text: str | None) -> int | None:
    """Return the number in a header, where -1 is the newest one before the first; None if there is none."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None
