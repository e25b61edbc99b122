"""Byte streams: bytes from an encoder's thread to one reader on the event loop, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from jobtester.errors import JobTesterError


class VideoInputError(JobTesterError):
    """The tester's own video could not be made."""


class ReceiverTooSlowError(JobTesterError):
    """The receiver takes the video more slowly than it is made."""


@dataclass(slots=True)
class Buffer:
    """Counts the bytes that wait in all streams of one video. `max_bytes` is more than a working receiver leaves."""

    max_bytes: int
    waiting: int = 0
    most: int = 0

    def add(self, size: int) -> None:
        """Count bytes in or out."""
        self.waiting += size
        self.most = max(self.most, self.waiting)

    @property
    def is_full(self) -> bool:
        """Return True if the receiver is too slow."""
        return self.waiting > self.max_bytes


@dataclass(slots=True, eq=False)
class ByteStream:
    """An asynchronous iterator of bytes for one reader; use it on the event loop only.

    Iterating raises VideoInputError or ReceiverTooSlowError if the video ended for such a reason.
    """

    buffer: Buffer
    _chunks: deque[bytes] = field(default_factory=deque)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _error: JobTesterError | None = None
    _is_closed: bool = False

    def put(self, data: bytes, *, starts_segment: bool = False) -> None:  # noqa: ARG002 - one stream has no segments
        """Append bytes; nothing happens after the end."""
        if not self._is_closed and data:
            self._chunks.append(data)
            self.buffer.add(len(data))
            self._changed.set()

    def close(self, error: JobTesterError | None = None) -> None:
        """End the stream after what waits in it, or with an error at once."""
        if self._is_closed:
            return
        self._is_closed = True
        self._error = error
        if error is not None:
            self._clear()
        self._changed.set()

    def discard(self) -> None:
        """Drop what waits and what will come; for a reader that no longer wants it."""
        self._is_closed = True
        self._clear()
        self._changed.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._is_closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        data = self._chunks.popleft()
        self.buffer.add(-len(data))
        return data

    def _clear(self) -> None:
        self.buffer.add(-sum(map(len, self._chunks)))
        self._chunks.clear()
