"""The socket at an orchestrator's service URI, so that a tester can find out by itself whether the node stands."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from jobtester.simulator import background_tasks

State = Literal["up", "down", "frozen"]

_CERTIFICATE = Path(__file__).parent / "orchestrator.pem"
_BACKLOG = 64
_ANSWER = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def is_local(uri: str) -> bool:
    """Whether a service URI is on this machine, so that somebody can listen there."""
    try:
        return ipaddress.ip_address(urlsplit(uri).hostname or "").is_loopback
    except ValueError:
        return False


class ServiceListener:
    """Listen at one service URI: `up` answers (TLS where the scheme says so), `down` refuses, `frozen` is silent.

    What is down keeps its port without listening, so that nobody else can take it meanwhile.
    """

    def __init__(self, uri: str, context: ssl.SSLContext) -> None:
        """Be ready to open the socket; port 0 in `uri` means any free one."""
        parts = urlsplit(uri)
        self._scheme, self._host, self._port = parts.scheme, parts.hostname or "127.0.0.1", parts.port
        self._path = parts.path
        self._context = context if parts.scheme == "https" else None
        self._socket: socket.socket | None = None
        self._state: State = "down"
        self._tasks = background_tasks.Tasks()
        self._open: set[asyncio.BaseTransport] = set()

    def open(self, *, bind_to: str = "", named: str = "", port: int = 0) -> str:
        """Take the port, `port` where the URI names none, and return the URI at which the node is now.

        `bind_to` and `named` replace the URI's host: the one to listen on, the other in what is returned.
        """
        self._host, shown = bind_to or self._host, named or self._host
        wanted = self._port if self._port is not None else (443 if self._context else 80)
        try:
            self._socket = self._bound(wanted or port)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or bind_to:
                raise
            self._host = shown = "127.0.0.1"  # some systems have this one loopback address only
            self._socket = self._bound(wanted or port)
        self._port = int(self._socket.getsockname()[1])
        host = f"[{shown}]" if ":" in shown else shown
        return f"{self._scheme}://{host}:{self._port}{self._path}"

    def become(self, state: State) -> None:
        """Answer, refuse or be silent from now on; who is connected already is cut off."""
        if self._socket is None or state == self._state:
            return
        self._cut_off(self._socket)
        if self._state != "down":  # a socket that listens cannot stop listening: another one takes its place
            self._socket.close()
            self._socket = self._bound(self._port or 0)
        self._state = state
        if state != "down":
            self._socket.listen(_BACKLOG)
        if state == "up":
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    async def close(self) -> None:
        """Give the port back."""
        if self._socket is not None:
            self._cut_off(self._socket)
            self._socket.close()
            self._socket, self._state = None, "down"
        await self._tasks.end()

    def _cut_off(self, listening: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(listening.fileno())
        for transport in self._open:
            transport.close()

    def _bound(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            one.setblocking(False)
            if port:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((self._host, port))
            # Connections inherit it, so that those still closing do not keep the next socket off this port.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError:
            one.close()
            raise
        return one

    def _accept(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            connection.setblocking(False)
            self._tasks.start(self._answer(connection), "service URI")

    async def _answer(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: _Visitor(self._open), connection, ssl=self._context)
        except (OSError, ssl.SSLError):  # somebody who left, or who does not speak TLS
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise


class _Visitor(asyncio.Protocol):
    """Answer whatever is asked in the same way."""

    def __init__(self, present: set[asyncio.BaseTransport]) -> None:
        self._present = present
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._present.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._present.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(_ANSWER)
        self._transport.close()


def context() -> ssl.SSLContext:
    """Return what all orchestrators need to speak TLS."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(_CERTIFICATE)
    return made
