"""The socket at an orchestrator's service URI, by which a tester can probe whether the node is up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from weakref import WeakSet

from jobtester.simulator.background_tasks import BackgroundTasks

NodeState = Literal["up", "down", "frozen"]

_CERTIFICATE = Path(__file__).parent / "orchestrator.pem"
_BACKLOG = 64
_TLS_ALERT = bytes.fromhex("15 0303 0002 02 28")  # handshake_failure
_HEADERS = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n"
_FIRST_VERSION_WITH_RUNNERS = (0, 9)


def is_loopback(uri: str) -> bool:
    """Return True if a service URI is on a loopback address, where the simulator can listen."""
    try:
        return ipaddress.ip_address(urlsplit(uri).hostname or "").is_loopback
    except ValueError:
        return False


def create_tls_context() -> ssl.SSLContext:
    """Return the TLS context that all orchestrators share."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATE)
    return context


def not_found_text(version: str) -> str:
    """Return what a node of this go-livepeer version that serves no runners responds to every path."""
    release = tuple(int(part) for part in version.split(".")[:2])
    return "live runners are not supported" if release >= _FIRST_VERSION_WITH_RUNNERS else "404 page not found"


class ServiceListener:
    """A socket at one service URI: `up` responds (with TLS for https), `down` refuses, `frozen` stays silent.

    What responds is `create_protocol`; without it, everything is answered 404 with the text of `not_found`.
    While down it stays bound to its port without listening, so that no other process can take the port meanwhile.
    """

    def __init__(
        self,
        uri: str,
        tls_context: ssl.SSLContext,
        *,
        create_protocol: Callable[[], asyncio.BaseProtocol] | None = None,
        not_found: str = "404 page not found",
    ) -> None:
        """Prepare a socket that is not bound yet."""
        parts = urlsplit(uri)
        self._scheme, self._host, self._port = parts.scheme, parts.hostname or "127.0.0.1", parts.port
        self._path = parts.path
        self._tls_context = tls_context if parts.scheme == "https" else None
        self._socket: socket.socket | None = None
        self._state: NodeState = "down"
        self.is_tls_broken = False  # every further connection fails in the TLS handshake
        self._tasks = BackgroundTasks()
        self._transports: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._create_protocol = create_protocol or (lambda: _FixedResponse(not_found))

    def open(self, *, bind_to: str = "", public_host: str = "", port: int = 0) -> str:
        """Bind the port (`port` if the URI has port 0) and return the URI at which the node can now be reached.

        `bind_to` replaces the URI's host as the address to listen on, `public_host` replaces it in what is returned.
        """
        self._host, public_host = bind_to or self._host, public_host or self._host
        uri_port = self._port if self._port is not None else (443 if self._tls_context else 80)
        try:
            self._socket = self._bind(uri_port or port)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or bind_to:
                raise
            self._host = public_host = "127.0.0.1"  # some systems have this one loopback address only
            self._socket = self._bind(uri_port or port)
        self._port = int(self._socket.getsockname()[1])
        netloc = f"[{public_host}]" if ":" in public_host else public_host
        return f"{self._scheme}://{netloc}:{self._port}{self._path}"

    def set_state(self, state: NodeState) -> None:
        """Respond, refuse or stay silent from now on, and close the connections that are open."""
        if self._socket is None or state == self._state:
            return
        self._disconnect_clients(self._socket)
        if self._state != "down":  # a socket that listens cannot stop listening: another one takes its place
            self._socket.close()
            self._socket = self._bind(self._port or 0)
        self._state = state
        if state != "down":
            self._socket.listen(_BACKLOG)
        if state == "up":
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    async def close(self) -> None:
        """Close the socket and every connection."""
        if self._socket is not None:
            self._disconnect_clients(self._socket)
            self._socket.close()
            self._socket, self._state = None, "down"
        await self._tasks.cancel_all()

    def _disconnect_clients(self, listening: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(listening.fileno())
        for transport in list(self._transports):
            transport.close()

    def _bind(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setblocking(False)
            if port:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self._host, port))
            # Connections inherit it, so that those still closing do not keep the next socket off this port.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError:
            bound.close()
            raise
        return bound

    def _accept(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            connection.setblocking(False)
            self._tasks.start(self._respond(connection), "service URI")

    async def _respond(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if self.is_tls_broken and self._tls_context is not None:
            await self._refuse_handshake(connection)
            return
        try:
            transport, _ = await loop.connect_accepted_socket(self._create_protocol, connection, ssl=self._tls_context)
            self._transports.add(transport)
        except (OSError, ssl.SSLError):  # the client has gone, or does not speak TLS
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    async def _refuse_handshake(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(OSError):
            await loop.sock_recv(connection, 65_536)  # the client's hello; closing over unread bytes would reset
            await loop.sock_sendall(connection, _TLS_ALERT)


class _FixedResponse(asyncio.Protocol):
    """Send the same response to whatever arrives."""

    def __init__(self, text: str) -> None:
        body = f"{text}\n"
        self._response = f"HTTP/1.1 404 Not Found\r\n{_HEADERS}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(self._response)
        self._transport.close()
