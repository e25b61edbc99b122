"""Byte streams: bytes from an encoder's thread to one reader on the event loop, bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from jobtester.errors import JobTesterError
from jobtester.video.ended_queue import EndedQueue


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
    _chunks: EndedQueue[bytes] = field(default_factory=EndedQueue)

    @property
    def is_closed(self) -> bool:
        """Return True if no more bytes will be put in."""
        return self._chunks.is_closed

    def put(self, data: bytes, *, starts_segment: bool = False) -> None:  # noqa: ARG002 - one stream has no segments
        """Append bytes; nothing happens after the end."""
        if not self.is_closed and data:
            self._chunks.put(data)
            self.buffer.add(len(data))

    def close(self, error: JobTesterError | None = None) -> None:
        """End the stream after what waits in it, or with an error at once."""
        if self.is_closed:
            return
        self._chunks.close(error)
        if error is not None:
            self._clear()

    def discard(self) -> None:
        """Drop what waits and what will come; for a reader that no longer wants it."""
        self._chunks.close()
        self._clear()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await anext(self._chunks)
        self.buffer.add(-len(data))
        return data

    def _clear(self) -> None:
        self.buffer.add(-sum(map(len, self._chunks.clear())))
