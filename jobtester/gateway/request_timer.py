"""Flights: one job's request on its way, timed where its bytes pass, however busy the event loop is."""

from __future__ import annotations

import asyncio
import socket
import time
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from jobtester.domain.exchanges import Ending

_NOW: ContextVar[RequestTimer] = ContextVar("flight")


@dataclass(slots=True)
class RequestTimer:
    """A request on its way, and the scope that ends it.

    `left` is when its first bytes went out, `heard` when bytes last came in, both monotonic seconds, None before.
    """

    scope: asyncio.Timeout
    timeout_s: float
    sent_at: float | None = None
    last_byte_at: float | None = None
    ending: Ending | None = None
    detail: str = ""
    _before: Token[RequestTimer] = field(init=False, repr=False)

    def __enter__(self) -> RequestTimer:
        """Have the sockets that this task opens from now on tell this flight."""
        self._before = _NOW.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _NOW.reset(self._before)  # else task and flight would hold each other for the garbage collector to find

    def start(self) -> None:
        """Note that the first bytes are about to be written: from now on the job's own limit counts.

        Raises ConnectionAbortedError where the request has been ended meanwhile: nothing may leave then.
        """
        if self.ending is not None:
            raise ConnectionAbortedError(self.detail)
        self.sent_at = time.monotonic()
        self.scope.reschedule(asyncio.get_running_loop().time() + self.timeout_s)


class TimedBody(aiohttp.payload.BytesPayload):
    """A request's body that says when it leaves: the connection stands then, and a busy loop has come to it."""

    def __init__(self, content: bytes, flight: RequestTimer) -> None:
        """Carry `content` for a flight."""
        super().__init__(content)
        self._flight = flight

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the content, and note when."""
        self._flight.start()
        await super().write_with_length(writer, content_length)


class TimestampingSocket(socket.socket):
    """A socket that notes when bytes came: whoever waits for them may get his turn only later."""

    def __init__(self, family: int, kind: int, protocol: int, flight: RequestTimer) -> None:
        super().__init__(family, kind, protocol)
        self._flight: RequestTimer | None = flight

    def recv(self, *given: Any) -> bytes:
        content = super().recv(*given)
        self._on_bytes(len(content))
        return content

    def recv_into(self, *given: Any) -> int:  # as with TLS
        count = super().recv_into(*given)
        self._on_bytes(count)
        return count

    def close(self) -> None:
        super().close()
        self._flight = None  # asyncio leaves closed sockets to the garbage collector; what they hold would stay, too

    def _on_bytes(self, count: int) -> None:
        if count and self._flight is not None:
            self._flight.last_byte_at = time.monotonic()


def open_timed_socket(info: tuple[Any, ...]) -> socket.socket:
    """Open a socket for the flight that has begun in this task; `info` is as getaddrinfo gives it."""
    family, kind, protocol, *_ = info
    return TimestampingSocket(family, kind, protocol, _NOW.get())
