"""Bytes between the event loop and a thread that decodes or encodes, in either direction and within bounds."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

_MAX_BYTES = 64 * 2**20


class BytePipe:
    """A file that a thread reads while the event loop writes it. After the end it returns b"" again and again."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._is_closed = False

    def feed(self, chunk: bytes) -> None:
        """Append bytes. They are dropped while too many are unread."""
        with self._condition:
            if chunk and not self._is_closed and self._size < _MAX_BYTES:
                self._chunks.append(chunk)
                self._size += len(chunk)
                self._condition.notify_all()

    def close(self) -> None:
        """End the file after what was fed."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()

    def abort(self) -> None:
        """End the file at once."""
        with self._condition:
            self._chunks.clear()
            self._size = 0
            self._is_closed = True
            self._condition.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be fed any more."""
        return self._is_closed

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait in the thread until the pipe is closed; return whether it is."""
        with self._condition:
            return self._condition.wait_for(lambda: self._is_closed, timeout_s)

    def wait_for_bytes(self) -> bool:
        """Wait in the thread for the first bytes; return False if there will be none."""
        with self._condition:
            self._condition.wait_for(lambda: self._chunks or self._is_closed)
            return bool(self._chunks)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, as soon as there are any."""
        with self._condition:
            self._condition.wait_for(lambda: self._chunks or self._is_closed)
            if not self._chunks:
                return b""
            chunk = self._chunks.popleft()
            if len(chunk) > size:
                self._chunks.appendleft(chunk[size:])
                chunk = chunk[:size]
            self._size -= len(chunk)
            return chunk


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of a segment. `is_end`: the segment ends with them."""

    segment: int
    content: bytes
    is_end: bool = False
    has_first_frame: bool = False


class ChunkQueue:
    """Segments that a thread writes while the event loop sends them."""

    def __init__(self) -> None:
        """Create an empty queue; call on the event loop that reads it."""
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self._segment = -1
        self._is_open = False
        self._marks_next = False
        self._lock = threading.Lock()
        self.pending_bytes = 0
        self._taken = -1
        self._ended = 0
        self._ended_taken = 0
        self.is_closed = False

    def begin_segment(self) -> None:
        """End the segment that is open, if any, and open the next one. Call in the writing thread."""
        self.end_segment()
        self._segment += 1
        self._is_open = True

    def mark_first_frame(self) -> None:
        """Mark the bytes that follow as those of the first frame."""
        self._marks_next = True

    def write(self, content: bytes) -> int:
        """Append bytes to the open segment: the interface of a file, for the muxer."""
        if self.is_closed or self.pending_bytes > _MAX_BYTES:
            raise BrokenPipeError("no reader takes the bytes")
        self._put(Chunk(self._segment, bytes(content), has_first_frame=self._marks_next))
        self._marks_next = False
        return len(content)

    def end_segment(self) -> None:
        """End the open segment."""
        if self._is_open:
            self._is_open = False
            self._ended += 1
            self._put(Chunk(self._segment, b"", is_end=True))

    def finish(self) -> None:
        """End the queue after what was written."""
        self.end_segment()
        self._put(None)

    def close(self) -> None:
        """Make the writing thread fail at its next write, and end the queue."""
        self.is_closed = True
        self._queue.put_nowait(None)

    @property
    def waiting_segments(self) -> int:
        """How many whole segments no reader has taken yet."""
        return self._ended - self._ended_taken

    async def next_chunk(self) -> Chunk | None:
        """Return the next bytes, None at the end."""
        if self.is_closed and self._queue.empty():
            return None
        chunk = await self._queue.get()
        if chunk is None:
            self.is_closed = True
        else:
            with self._lock:
                self.pending_bytes -= len(chunk.content)
            self._taken = chunk.segment
            self._ended_taken += chunk.is_end
        return chunk

    async def next_segment(self) -> Chunk | None:
        """Return the first bytes of the next segment of which nothing was taken yet, None at the end."""
        while True:
            taken = self._taken
            chunk = await self.next_chunk()
            if chunk is None or (chunk.segment > taken and not chunk.is_end):
                return chunk

    async def read_segment(self, first: Chunk) -> AsyncIterator[Chunk]:
        """Yield the chunks of the segment that begins with `first`."""
        yield first
        while (chunk := await self.next_chunk()) is not None and not chunk.is_end:
            yield chunk

    def _put(self, chunk: Chunk | None) -> None:
        if chunk is not None:
            with self._lock:
                self.pending_bytes += len(chunk.content)
        with suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._queue.put_nowait, chunk)
