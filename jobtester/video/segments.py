"""Segments: a video cut into streams of their own, each readable while it is still written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from jobtester.errors import JobTesterError
from jobtester.video.byte_stream import Buffer, ByteStream
from jobtester.video.ended_queue import EndedQueue


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One segment: its place from 0 on, and its bytes, which come while it is written."""

    index: int
    content: ByteStream


@dataclass(slots=True, eq=False)
class SegmentStream:
    """An asynchronous iterator of segments for one reader; use it on the event loop only.

    A segment comes out when its first bytes exist, and the one before it has ended by then.
    """

    buffer: Buffer
    _segments: EndedQueue[Segment] = field(default_factory=EndedQueue)
    _current: ByteStream | None = None
    _count: int = 0

    def put(self, data: bytes, *, starts_segment: bool) -> None:
        """Append bytes to the current segment, or to a new one."""
        if self._segments.is_closed or not data:
            return
        if starts_segment or self._current is None:
            if self._current is not None:
                self._current.close()
            self._current = ByteStream(self.buffer)
            self._segments.put(Segment(self._count, self._current))
            self._count += 1
        self._current.put(data)

    def close(self, error: JobTesterError | None = None) -> None:
        """End the current segment and the stream of segments."""
        if self._segments.is_closed:
            return
        self._segments.close(error)
        if self._current is not None:
            self._current.close(error)
        if error is not None:
            for segment in self._segments.clear():
                segment.content.discard()

    def __aiter__(self) -> AsyncIterator[Segment]:
        return self._segments
