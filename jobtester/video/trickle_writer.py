"""Write a trickle channel: segments as they are made, the next one's request open before the current one ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from dataclasses import dataclass, field

from jobtester.http import read_bounded
from jobtester.video.trickle import GONE, REQUEST_ERRORS, RESET, ChannelEnd, OpenRequest, parse_number
from jobtester.video.trickle_post import PostAnswer, SegmentPost, StalledError

_MAX_NUMBER_BYTES = 100
_CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """How a channel is written.

    `joins_late`: others may have written to it, so numbers go on where the channel is, and segments that they left open
    are closed. `closes`: the channel is closed at the end, however it comes. `stall_s`: how long the server may take no
    bytes, or owe an answer. `max_s`: how long writing may take in all.
    """

    joins_late: bool = False
    closes: bool = True
    content_type: str = "video/MP2T"
    stall_s: float = 10.0
    max_s: float = 600.0


class _EndError(Exception):
    def __init__(self, end: ChannelEnd) -> None:
        super().__init__(end.message)
        self.end = end


@dataclass(slots=True)
class ChannelWriter:
    """Writes one channel. `segments` counts those that the server has whole; `dropped` has those that it ended early.

    Nothing that the server does raises: writing ends, and `end` says why.
    """

    open_request: OpenRequest
    url: str
    options: WriterOptions = WriterOptions()
    end: ChannelEnd | None = None
    segments: int = 0
    sent: int = 0
    dropped: list[int] = field(default_factory=list)
    _posts: set[SegmentPost] = field(default_factory=set)
    _is_first: bool = True
    _resume_at: int | None = None

    async def write(self, segments: AsyncIterable[AsyncIterable[bytes]]) -> ChannelEnd:
        """Write every segment, and return why writing ended. What `segments` raises goes on to the caller."""
        try:
            async with asyncio.timeout(self.options.max_s) as bound:
                await self._write_all(segments)
            self.end = ChannelEnd("finished", "every segment was written")
        except _EndError as error:
            self.end = error.end
        except StalledError as error:
            self.end = ChannelEnd("stalled", str(error))
        except TimeoutError:
            if not bound.expired():
                raise
            self.end = ChannelEnd("limit", f"the writer stopped after {self.options.max_s:g} s")
        finally:
            await self._close()
        return self.end

    async def _write_all(self, segments: AsyncIterable[AsyncIterable[bytes]]) -> None:
        post = self._open(await self._find_start())
        unanswered: SegmentPost | None = None
        async for segment in segments:
            following = await self._write_segment(segment, post)
            if following is None:  # it had no byte
                continue
            # The answer to a segment is collected a segment later, so that no byte waits for it.
            if unanswered is not None:
                self._judge(unanswered, await unanswered.answer(self.options.stall_s))
            unanswered, post = post, following
            if self._resume_at is not None:
                await self._drop(post)
                self._is_first, (number, self._resume_at) = True, (self._resume_at, None)
                post = self._open(number)
        if unanswered is not None:
            self._judge(unanswered, await unanswered.answer(self.options.stall_s))
        if not self.options.closes:
            await self._end_unused(post)

    async def _write_segment(self, segment: AsyncIterable[bytes], post: SegmentPost) -> SegmentPost | None:
        """Write one segment, and return the request that is open for the next one; None if it had no byte."""
        following: SegmentPost | None = None
        is_dropped = False
        async for data in segment:
            if not data or is_dropped:
                continue
            if following is None:
                following = self._open(post.number + 1)
            if await post.write(data, self.options.stall_s):
                self.sent += len(data)
            else:
                # Raises if the whole channel has ended. Otherwise only this segment has: the rest of it is left out.
                self._judge(post, await post.answer(self.options.stall_s))
                is_dropped = True
        if following is not None:
            await post.finish(self.options.stall_s)
        return following

    def _judge(self, post: SegmentPost, answer: PostAnswer) -> None:
        """Count a segment by its answer, once. Raises _EndError if the answer ends the channel."""
        if post not in self._posts:
            return
        self._posts.discard(post)
        if answer.error is not None:
            raise _EndError(answer.error)
        if answer.is_closed:
            raise _EndError(ChannelEnd.closed())
        if answer.status == 404:
            raise _EndError(ChannelEnd.from_missing(is_first=not self.segments))
        if answer.status == GONE and answer.latest is not None and answer.latest >= post.number:
            self.dropped.append(post.number)
            self._resume_at = answer.latest + 1
        elif answer.status != 200:
            raise _EndError(ChannelEnd("refused", answer.refusal or f"the orchestrator answers status {answer.status}"))
        elif answer.is_complete:
            self.segments += 1
        else:
            self.dropped.append(post.number)

    def _open(self, number: int) -> SegmentPost:
        headers = {"Content-Type": self.options.content_type}
        if self._is_first and (self.options.joins_late or number > 0):
            headers[RESET] = "1"
        self._is_first = False
        post = SegmentPost(self.open_request, self.url, number, headers)
        self._posts.add(post)
        return post

    async def _find_start(self) -> int:
        if not self.options.joins_late:
            return 0
        try:
            async with asyncio.timeout(self.options.stall_s), self.open_request("GET", f"{self.url}/next") as response:
                body = await read_bounded(response.content, _MAX_NUMBER_BYTES)
        except REQUEST_ERRORS as error:
            raise _EndError(ChannelEnd.from_error(error, self.url)) from error
        if response.status == 404:
            raise _EndError(ChannelEnd.from_missing(is_first=True))
        number = parse_number(body.decode("ascii", "replace").strip())
        if response.status != 200 or number is None or number < 0:
            raise _EndError(ChannelEnd("invalid", "the orchestrator did not say which segment is next"))
        return number

    async def _drop(self, post: SegmentPost) -> None:
        self._posts.discard(post)
        await post.cancel()

    async def _end_unused(self, post: SegmentPost) -> None:
        """Close the segment that is open for nothing, so that readers do not wait for it."""
        await self._delete(f"{self.url}/{post.number}")
        await self._drop(post)

    async def _close(self) -> None:
        for post in list(self._posts):
            if self.end is None or self.end.code != "finished":
                await self._drop(post)
        if self.options.closes and (self.end is None or self.end.code not in ("closed", "missing")):
            await self._delete(self.url)
        for post in list(self._posts):
            await self._drop(post)

    async def _delete(self, url: str) -> None:
        with suppress(*REQUEST_ERRORS):
            async with asyncio.timeout(_CLOSE_S), self.open_request("DELETE", url):
                pass
