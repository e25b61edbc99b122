"""The bytes between the daemon and a decoder process: chunks of the stream one way, lines of JSON the other.

Nothing is pickled: a decoder that a stream has taken over could make a pickle run code in the daemon.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import IO, Any

import orjson

MAX_CHUNK_BYTES = 256 * 1024
MAX_LINE_BYTES = 128 * 1024  # a still as base64 is the longest line
_HEADER = struct.Struct(">dI")


def encode_header(arrived: float, size: int) -> bytes:
    """Return what comes before a chunk of `size` bytes that arrived at a monotonic time."""
    return _HEADER.pack(arrived, size)


END = encode_header(0.0, 0)


def receive_chunk(pipe: IO[bytes]) -> tuple[float, bytes] | None:
    """Return the next chunk and when it arrived, None at the end of the video or if the daemon is gone."""
    header = pipe.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    arrived, size = _HEADER.unpack(header)
    data = pipe.read(size)
    return (arrived, data) if size and len(data) == size else None


def send_line(pipe: IO[bytes], message: Mapping[str, Any]) -> None:
    """Send one line. Raises OSError if the daemon is gone."""
    pipe.write(orjson.dumps(message) + b"\n")
    pipe.flush()
