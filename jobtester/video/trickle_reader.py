"""Read a trickle channel: bytes with their times of arrival, segment after segment, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Self

import aiohttp

from jobtester.video.trickle import (
    CLOSED,
    GONE,
    LATEST,
    REQUEST_ERRORS,
    SEQUENCE,
    ChannelEnd,
    OpenRequest,
    describe_refusal,
    parse_number,
)

NEXT, CURRENT = -1, -2

_MAX_MISSES = 20  # one after the other; with their pauses, some 10 s
_MISS_PAUSE_S = 0.05  # and as much more after each further one
_EMPTY_PAUSE_S = 0.02  # a server that sends nothing but empty segments is not asked without a pause
_MAX_GAPS = 1_000


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """How much is read at most. `max_s` counts from the start, waiting included."""

    max_s: float = 600.0
    max_bytes: int = 512 * 2**20
    max_segments: int = 10_000


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a segment, and when they arrived by the monotonic clock."""

    arrived: float
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """Segments that were gone before they were read: `first` to `last`."""

    first: int
    last: int


@dataclass(slots=True)
class ChannelReader:
    """Reads a channel while the context is entered; iterate over it once, for pieces.

    `start` is a segment's number, NEXT for the next one to be written or CURRENT. Nothing that the server does raises:
    iteration ends, and `end` says why. `segments` counts those that were read to their end, `empty` those of them
    without a byte.
    """

    open_request: OpenRequest
    url: str
    start: int = NEXT
    limits: ReaderLimits = ReaderLimits()
    end: ChannelEnd | None = None
    gaps: list[Gap] = field(default_factory=list)
    segments: int = 0
    empty: int = 0
    received: int = 0
    _position: _Position = field(init=False)
    _open: _OpenSegment | None = None

    def __post_init__(self) -> None:
        self._position = _Position(self.start)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._leave_segment()

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        if self._position.deadline is None:
            self._position.deadline = asyncio.get_running_loop().time() + self.limits.max_s
        while self.end is None:
            try:
                async with asyncio.timeout_at(self._position.deadline) as bound:
                    piece = await self._step()
            except REQUEST_ERRORS as error:
                await self._leave_segment()
                is_over = isinstance(error, TimeoutError) and bound.expired()
                self.end = (
                    self._limit(f"{self.limits.max_s:g} s") if is_over else ChannelEnd.from_error(error, self.url)
                )
                break
            if piece is not None:
                return piece
        await self._leave_segment()
        raise StopAsyncIteration

    async def _step(self) -> Piece | None:
        """Read some bytes, or open the next segment."""
        if self._open is None:
            await self._open_next()
            return None
        data = await self._open.response.content.readany()
        if data:
            self._open.has_bytes = True
            self.received += len(data)
            if self.received > self.limits.max_bytes:
                self.end = self._limit(f"{self.limits.max_bytes} bytes")
                return None
            return Piece(asyncio.get_running_loop().time(), self._open.number, data)
        self.segments += 1
        self.empty += not self._open.has_bytes
        self._position.misses, self._position.pause_s = 0, 0.0 if self._open.has_bytes else _EMPTY_PAUSE_S
        await self._leave_segment()
        if self.segments >= self.limits.max_segments:
            self.end = self._limit(f"{self.limits.max_segments} segments")
        return None

    async def _open_next(self) -> None:
        position = self._position
        if position.misses >= _MAX_MISSES:
            self.end = ChannelEnd("stalled", f"the next segment was not there, {position.misses} times in a row")
            return
        await asyncio.sleep(position.pause_s)
        context = self.open_request("GET", f"{self.url}/{position.number}")
        response = await context.__aenter__()
        try:
            self._open = await self._accept(response, context)
        finally:
            if self._open is None:
                await context.__aexit__(None, None, None)

    async def _accept(
        self, response: aiohttp.ClientResponse, context: AbstractAsyncContextManager[aiohttp.ClientResponse]
    ) -> _OpenSegment | None:
        position = self._position
        if response.status == 200 and CLOSED in response.headers:
            self.end = ChannelEnd.closed()
        elif response.status == 404:
            self.end = ChannelEnd.from_missing(is_first=not position.has_answered)
        elif response.status == GONE:
            self._jump(parse_number(response.headers.get(LATEST)))
        elif response.status != 200:
            self.end = ChannelEnd("refused", await describe_refusal(response))
        else:
            number = parse_number(response.headers.get(SEQUENCE))
            number = position.number if number is None else number
            if number >= max(position.number, 0):
                position.has_answered = True
                self._record_gap(number)
                position.number = number + 1
                return _OpenSegment(number, response, context)
            self.end = ChannelEnd("invalid", f"segment {number} came when {position.number} was asked for")
        return None

    def _jump(self, latest: int | None) -> None:
        """Go on with the newest segment where the one that was asked for is gone."""
        position = self._position
        position.has_answered = True
        position.misses += 1
        position.pause_s = _MISS_PAUSE_S * (position.misses - 1)
        if latest is None:
            self.end = ChannelEnd("invalid", "the orchestrator did not say which segment is the newest")
        elif latest > position.number:
            if position.number >= 0 and len(self.gaps) < _MAX_GAPS:
                self.gaps.append(Gap(position.number, latest - 1))
            position.number = latest
        # Otherwise the segment is not there yet, because the one before it was dropped: it is asked for again.

    def _record_gap(self, number: int) -> None:
        if 0 <= self._position.number < number and len(self.gaps) < _MAX_GAPS:
            self.gaps.append(Gap(self._position.number, number - 1))

    def _limit(self, what: str) -> ChannelEnd:
        return ChannelEnd("limit", f"the reader stopped after {what}")

    async def _leave_segment(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            if not opened.response.content.at_eof():
                opened.response.close()  # what has not come yet would be waited for
            await opened.context.__aexit__(None, None, None)


@dataclass(slots=True)
class _Position:
    """`number` is asked for next, after a pause; `misses` counts in a row how often a segment was not there."""

    number: int
    misses: int = 0
    pause_s: float = 0.0
    has_answered: bool = False
    deadline: float | None = None


@dataclass(slots=True)
class _OpenSegment:
    number: int
    response: aiohttp.ClientResponse
    context: AbstractAsyncContextManager[aiohttp.ClientResponse]
    has_bytes: bool = False
