"""Connections that know when their bytes arrived and left, whatever the simulator's own event loop does meanwhile."""

from __future__ import annotations

import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from aiohttp import web

_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY_BYTES = 64
_MAX_AGE_S = 1.0  # more means that the wall clock was set


class TimedConnection(socket.socket):
    """A connection that records when it last received bytes, by the kernel's stamp if there is one, and last sent some.

    Both are in monotonic seconds.
    """

    received_at = sent_at = 0.0

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive bytes, and record when they arrived."""
        content, ancillary, *_ = self.recvmsg(size, _ANCILLARY_BYTES, flags)
        if content:
            self.received_at = time.monotonic() - _read_age_s(ancillary)
        return content

    def send(self, content: Any, flags: int = 0) -> int:
        """Send bytes, and record when they left."""
        self.sent_at = time.monotonic()
        return super().send(content, flags)


class TimedListener(socket.socket):
    """A listening socket that accepts timed connections."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        accepted, address = super().accept()
        connection = TimedConnection(fileno=accepted.detach())
        if sys.platform == "linux":
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        _open_connections[connection.fileno()] = connection
        return connection, address


# A transport shows its socket through a wrapper only, by which nothing but the number of the file can be asked.
_open_connections: WeakValueDictionary[int, TimedConnection] = WeakValueDictionary()


def find_connection(request: web.Request) -> TimedConnection | None:
    """Return the connection of a request; None if it is closed, or is not timed."""
    wrapper = request.transport.get_extra_info("socket") if request.transport is not None else None
    return _open_connections.get(wrapper.fileno()) if wrapper is not None else None


def find_received_at(request: web.Request) -> float:
    """Return when the last bytes of a request that was read had arrived, in monotonic seconds."""
    connection = find_connection(request)
    return connection.received_at if connection is not None else time.monotonic()


def _read_age_s(ancillary: list[tuple[int, int, bytes]]) -> float:
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(content) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(content)
            age_s = (time.time_ns() - seconds * 10**9 - nanoseconds) / 1e9
            return age_s if 0 <= age_s < _MAX_AGE_S else 0.0
    return 0.0
