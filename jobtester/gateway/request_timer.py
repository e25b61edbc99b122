"""Time one job's request at the socket, regardless of the load of the machine and of the event loop."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from jobtester.domain.exchanges import Ending

# aiohttp opens sockets through a factory that knows nothing of requests. This variable tells it whose socket it opens:
# every job has a connection of its own, which is opened in the task of its request or in one that this task starts.
_CURRENT: ContextVar[RequestTimer] = ContextVar("request_timer")

SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
TIMESPEC = struct.Struct("@ll")
_ANCILLARY_BYTES = 64
_MAX_AGE_S = 1.0  # longer than the event loop is ever busy


@dataclass(slots=True)
class RequestTimer:
    """The clock and the deadline of one request.

    `sent_at` is when its first bytes went out and `last_byte_at` when bytes last came in, both in monotonic seconds and
    None before. `scope` ends the request `timeout_s` seconds after it was sent. `ending` and `detail` are set where the
    tester itself ends it.
    """

    scope: asyncio.Timeout
    timeout_s: float
    sent_at: float | None = None
    last_byte_at: float | None = None
    ending: Ending | None = None
    detail: str = ""
    _token: Token[RequestTimer] = field(init=False, repr=False)

    def __enter__(self) -> RequestTimer:
        """Time the sockets that this task opens from now on."""
        self._token = _CURRENT.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        # Without this, task and timer would hold each other until the garbage collector runs.
        _CURRENT.reset(self._token)

    def start(self) -> None:
        """Start the job's own time limit, because its first bytes are about to be written.

        Raises ConnectionAbortedError where the request has been ended meanwhile: nothing may leave then. Nor may it
        leave a second time, as aiohttp would have it after a GET without an answer.
        """
        if self.ending is not None:
            raise ConnectionAbortedError(self.detail)
        if self.sent_at is not None:
            raise ConnectionAbortedError("the connection was closed without an answer")
        self.sent_at = time.monotonic()
        self.scope.reschedule(asyncio.get_running_loop().time() + self.timeout_s)


class TimedBody(aiohttp.payload.BytesPayload):
    """A request body that starts the timer when it is written.

    By then the connection is open and the event loop has come to this request, so neither name resolution, connecting
    and TLS nor a busy tester are charged to the orchestrator.
    """

    def __init__(self, content: bytes, timer: RequestTimer) -> None:
        super().__init__(content)
        self._timer = timer

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Start the timer and write the content."""
        self._timer.start()
        await super().write_with_length(writer, content_length)


class TimestampingSocket(socket.socket):
    """A socket that records when bytes arrived at this machine.

    From then on the response waits for a core and for the event loop's turn, and passes through transport, TLS, parser
    and a task. With many jobs in flight that takes long enough to falsify a round trip. So on Linux the kernel stamps
    what arrives, and its stamp counts. Elsewhere it is the time of recv(), which the event loop calls at its next turn.
    """

    def __init__(self, family: int, kind: int, protocol: int, timer: RequestTimer) -> None:
        super().__init__(family, kind, protocol)
        self._timer: RequestTimer | None = timer
        if sys.platform == "linux":
            with suppress(OSError):
                self.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive bytes, as plain connections do."""
        content, ancillary, *_ = self.recvmsg(size, _ANCILLARY_BYTES, flags)
        self._on_received(len(content), ancillary)
        return content

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        """Receive bytes into a buffer, as connections with TLS do."""
        view = memoryview(buffer)
        count, ancillary, *_ = self.recvmsg_into([view[:size] if size else view], _ANCILLARY_BYTES, flags)
        self._on_received(count, ancillary)
        return count

    def close(self) -> None:
        """Close the socket and drop the timer."""
        super().close()
        # asyncio leaves closed sockets to the garbage collector; whatever they refer to would stay as well.
        self._timer = None

    def _on_received(self, count: int, ancillary: Sequence[tuple[int, int, bytes]]) -> None:
        if count and self._timer is not None:  # the empty read at the end of a connection is no byte
            arrived_at = time.monotonic() - read_age_s(ancillary, time.time_ns())
            self._timer.last_byte_at = max(arrived_at, self._timer.sent_at or 0.0)


def read_age_s(ancillary: Sequence[tuple[int, int, bytes]], now_ns: int) -> float:
    """Return how many seconds ago the kernel received the newest bytes of a read; 0 if it does not say.

    `now_ns` is the wall clock in nanoseconds, which the stamp is on. Where that was set meanwhile, the age is unknown.
    """
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(content) == TIMESPEC.size:
            seconds, nanoseconds = TIMESPEC.unpack(content)
            age_s = (now_ns - seconds * 10**9 - nanoseconds) / 1e9
            return age_s if 0 <= age_s < _MAX_AGE_S else 0.0
    return 0.0


def open_timed_socket(info: tuple[Any, ...]) -> socket.socket:
    """Open a socket for the request that is timed in this task; `info` is an entry of getaddrinfo()."""
    family, kind, protocol, *_ = info
    return TimestampingSocket(family, kind, protocol, _CURRENT.get())
