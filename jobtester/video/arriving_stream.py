"""The arriving stream: a file for the decoder that records when its bytes arrived."""

from __future__ import annotations

import bisect
from typing import IO

from jobtester.video.decoder_protocol import receive_chunk

_MAX_ARRIVALS = 50_000


class ArrivingStream:
    """Reads chunks from the daemon. It has no `seek`, and its reads return what is there instead of waiting for more.

    After the end (`is_over`) it answers every read with nothing: the demuxer asks again.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self.is_over = False
        self._pipe = pipe
        self._chunk = memoryview(b"")
        self._received = 0
        self._ends: list[int] = []
        self._times: list[float] = []

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end."""
        if not self._chunk and not self.is_over:
            self._receive()
        data, self._chunk = self._chunk[:size], self._chunk[size:]
        return bytes(data)

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes without reading them; fewer only if the stream is over."""
        while len(self._chunk) < size and not self.is_over:
            self._receive()
        return bytes(self._chunk[:size])

    def arrived(self, offset: int) -> float:
        """Return when the byte before an offset arrived, or the last byte if fewer have."""
        place = min(bisect.bisect_left(self._ends, offset), len(self._ends) - 1)
        return self._times[place]

    @property
    def received(self) -> int:
        """Return how many bytes have arrived."""
        return self._received

    def _receive(self) -> None:
        chunk = receive_chunk(self._pipe)
        if chunk is None:
            self.is_over = True
            return
        arrived, data = chunk
        self._chunk = memoryview(bytes(self._chunk) + data)
        self._received += len(data)
        self._ends.append(self._received)
        self._times.append(arrived)
        if len(self._ends) > _MAX_ARRIVALS:
            # What arrived so long ago has been decoded.
            del self._ends[: _MAX_ARRIVALS // 2], self._times[: _MAX_ARRIVALS // 2]
