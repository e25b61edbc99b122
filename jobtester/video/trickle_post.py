"""A POST that stays open: one segment of a trickle channel, on its way while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from jobtester.video.trickle import (
    CLOSED,
    LATEST,
    REQUEST_ERRORS,
    ChannelEnd,
    OpenRequest,
    describe_refusal,
    parse_number,
)

_MAX_WAITING_CHUNKS = 256
_KNOWN_STATUSES = (200, 404, 470)


@dataclass(frozen=True, slots=True)
class PostAnswer:
    """How the server answered. `error` is set if it did not; `is_complete`: it answered after the whole body."""

    status: int = 0
    is_closed: bool = False
    latest: int | None = None
    refusal: str = ""
    error: ChannelEnd | None = None
    is_complete: bool = False


class StalledError(Exception):
    """The server takes no bytes, or does not answer."""


class SegmentPost:
    """The POST of one segment, opened at once, before its first byte exists."""

    def __init__(self, open_request: OpenRequest, url: str, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self._open_request, self._url, self._headers = open_request, f"{url}/{number}", headers
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_WAITING_CHUNKS)
        self._is_complete = False
        self._task = asyncio.create_task(self._send(), name=f"segment {number}")

    @property
    def is_answered(self) -> bool:
        """Return True if the server has answered, or the connection is broken."""
        return self._task.done()

    async def write(self, data: bytes, stall_s: float) -> bool:
        """Send bytes; return False if the server has answered already. StalledError if none are taken for too long."""
        return await self._put(data, stall_s)

    async def finish(self, stall_s: float) -> None:
        """End the segment after what was written."""
        await self._put(None, stall_s)

    async def answer(self, stall_s: float) -> PostAnswer:
        """Return the server's answer. StalledError if it does not come in time."""
        done, _ = await asyncio.wait({self._task}, timeout=stall_s)
        if not done:
            raise StalledError(f"segment {self.number} was not answered within {stall_s:g} s")
        return self._task.result()

    async def cancel(self) -> None:
        """Hang up, if the server has not answered."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _put(self, data: bytes | None, stall_s: float) -> bool:
        if self._task.done():
            return False
        if not self._chunks.full():
            self._chunks.put_nowait(data)
            return True
        put = asyncio.create_task(self._chunks.put(data))
        try:
            await asyncio.wait({put, self._task}, timeout=stall_s, return_when=asyncio.FIRST_COMPLETED)
            if put.done():
                return True
            if self._task.done():
                return False
            raise StalledError(f"the orchestrator took no bytes of segment {self.number} for {stall_s:g} s")
        finally:
            put.cancel()
            await asyncio.gather(put, return_exceptions=True)

    async def _body(self) -> AsyncIterator[bytes]:
        yield b""  # sends the headers: aiohttp keeps them back until the first chunk
        while (data := await self._chunks.get()) is not None:
            yield data
        self._is_complete = True

    async def _send(self) -> PostAnswer:
        try:
            async with self._open_request("POST", self._url, headers=self._headers, data=self._body()) as response:
                refusal = "" if response.status in _KNOWN_STATUSES else await describe_refusal(response)
                return PostAnswer(
                    status=response.status,
                    is_closed=CLOSED in response.headers,
                    latest=parse_number(response.headers.get(LATEST)),
                    refusal=refusal,
                    is_complete=self._is_complete,
                )
        except REQUEST_ERRORS as error:
            return PostAnswer(error=ChannelEnd.from_error(error, self._url))
