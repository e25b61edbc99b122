"""A channel: numbered segments that are read while they are written, the last five of them kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

KEPT_SEGMENTS = 5


class Segment:
    """One segment. It has begun with its first byte, and is over when its writer or another client ends it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.content = bytearray()
        self.is_over = False
        self._changed = asyncio.Event()

    @property
    def is_fresh(self) -> bool:
        """Return True if nothing has happened to it yet."""
        return not self.content and not self.is_over

    async def read(self, offset: int) -> bytes:
        """Return the bytes from `offset` on as soon as there are any; none if the segment is over before."""
        while len(self.content) <= offset and not self.is_over:
            await self._changed.wait()
        return bytes(self.content[offset:])

    async def wait_until_over(self) -> None:
        """Wait for its end."""
        while not self.is_over:
            await self._changed.wait()

    def append(self, data: bytes) -> None:
        """Add bytes; those that come after its end are dropped."""
        if not self.is_over and data:
            self.content += data
            self._notify()

    def finish(self) -> None:
        """End it."""
        if not self.is_over:
            self.is_over = True
            self._notify()

    def _notify(self) -> None:
        # Every reader waits for the event that it found: each gets its own wake-up without a lock.
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a segment, in the order of arrival. `data` is empty at the segment's end."""

    number: int
    data: bytes


class Channel:
    """One channel; use it on the event loop.

    `next_number` is that of the next segment to begin. A segment that is opened before its first byte takes one of the
    five places already, as in go-livepeer.
    """

    def __init__(self, name: str, content_type: str, on_idle: Callable[[], None], idle_s: float) -> None:
        """Open it. `on_idle` is called when no segment has begun for `idle_s` seconds."""
        self.name, self.content_type = name, content_type
        self.next_number = 0
        self.is_closed = False
        self._places: dict[int, Segment] = {}
        self._on_idle, self._idle_s = on_idle, idle_s
        self._timer = asyncio.get_running_loop().call_later(idle_s, on_idle)

    @property
    def latest(self) -> int:
        """Return the number of the newest segment that has begun, -1 before the first."""
        return self.next_number - 1

    def segment(self, number: int) -> Segment | None:
        """Return a segment that is kept or open."""
        segment = self._places.get(number % KEPT_SEGMENTS)
        return segment if segment is not None and segment.number == number else None

    def open_for_writing(self, number: int = -1, *, reset: bool = False) -> Segment:
        """Return the segment to write to, the next one for -1. With `reset`, older segments that are open end."""
        number = self.next_number if number == -1 else number
        if reset:
            for segment in self._places.values():
                if segment.number < number:
                    segment.finish()
        return self.segment(number) or self._open(number)

    def open_for_reading(self, number: int) -> Segment | None:
        """Return the segment to read, the next one for -1, the current one for -2; None if it is not there."""
        number = {-1: self.next_number, -2: max(self.latest, 0)}.get(number, number)
        segment = self.segment(number)
        if segment is None and number == self.next_number and not self.is_closed:
            segment = self._open(number)
        return segment

    def append(self, segment: Segment, data: bytes) -> None:
        """Add bytes to one of its segments, which begins with the first of them."""
        if segment.is_over or not data:
            return
        if not segment.content:
            self.next_number = segment.number + 1
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._on_idle)
        segment.append(data)

    def write(self, data: bytes, number: int = -1) -> None:
        """Write a whole segment at once."""
        segment = self.open_for_writing(number)
        self.append(segment, data)
        segment.finish()

    async def read(self, number: int = -1) -> AsyncIterator[Piece]:
        """Yield what is written, from a segment on as open_for_reading() takes it, until the channel is closed.

        Segments that are gone before they are read are left out.
        """
        segment = self.open_for_reading(number)
        while segment is not None:
            offset = 0
            while data := await segment.read(offset):
                offset += len(data)
                yield Piece(segment.number, data)
            yield Piece(segment.number, b"")
            following = max(segment.number + 1, self.next_number - KEPT_SEGMENTS + 1)
            segment = self.open_for_reading(following) or self.open_for_reading(-1)

    def close(self) -> None:
        """End every segment, which wakes its readers and writers."""
        self.is_closed = True
        self._timer.cancel()
        for segment in self._places.values():
            segment.finish()
        self._places.clear()

    def _open(self, number: int) -> Segment:
        place = number % KEPT_SEGMENTS
        if place in self._places:
            self._places[place].finish()
        segment = self._places[place] = Segment(number)
        return segment
