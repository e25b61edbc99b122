"""Connect to an orchestrator's service URI like a gateway, to distinguish a dead one from an unselected one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable

from jobtester.domain.attempts import Connection, ConnectionState
from jobtester.domain.orchestrators import parse_endpoint
from jobtester.http import explain_connection_error

_BATCH = 8  # other orchestrators that are tried at a time to tell whether the tester's own network works
_MAX_OTHERS = 4 * _BATCH
_NETWORK_WORKS_S = 30.0  # how long a connection to one orchestrator shows that the network works
# Errors of a machine without a way out of its own network, or that has run out of something.
_OWN_ERRORS = frozenset(
    {errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS}
)
_UNKNOWN_HOST = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class ConnectionProbe:
    """Connects over TCP and TLS, a second time after a pause, and sends nothing else; holds what one tick has learned.

    Orchestrators sign their own certificates, so none is verified.
    """

    def __init__(
        self,
        service_uris: Iterable[str],
        *,
        timeout_s: float = 5.0,
        pause_s: float = 2.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Probe among the service URIs of a tick; an attempt to connect is given up after `timeout_s` seconds."""
        self._endpoints = {endpoint: uri for uri in service_uris if (endpoint := parse_endpoint(uri)) is not None}
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._sleep = sleep
        self._now = now
        self._lock = asyncio.Lock()
        self._network_works_until = float("-inf")
        self._last_reachable: tuple[str, int] | None = None
        self._last_was_secure = False
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    async def probe(self, uri: str, *, needs_tls: bool = False) -> Connection:
        """Return whether a service URI can be connected to; never raises for what the network does.

        Something that answers without TLS where the URI has it counts as reachable, unless `needs_tls` is set.
        """
        endpoint = parse_endpoint(uri)
        if endpoint is None:
            return Connection(ConnectionState.UNKNOWN, f"{uri} is no address to connect to")
        for attempt in range(2):
            if attempt:
                await self._sleep(self._pause_s)
            problem, is_own_fault = await self._find_problem(uri, endpoint, needs_tls=needs_tls)
            if not problem:
                return Connection(ConnectionState.REACHABLE, f"the tester can connect to {uri}")
            if is_own_fault:
                return Connection(ConnectionState.UNKNOWN, f"the tester cannot connect to anything: {problem}")
        # An orchestrator loses a score where it is unreachable. So the tester first shows that its own network works.
        # A connection without TLS does not show that the tester's own TLS works, so it is asked for here too.
        if not await self._reaches_another(endpoint, needs_tls=needs_tls and _is_secure(uri)):
            summary = f"the tester cannot connect to {uri}, and to no other orchestrator either: {problem}"
            return Connection(ConnectionState.UNKNOWN, summary)
        return Connection(
            ConnectionState.UNREACHABLE,
            f"the tester tried to connect to {uri} twice and could not, while another orchestrator answers: {problem}",
        )

    async def _find_problem(self, uri: str, endpoint: tuple[str, int], *, needs_tls: bool = False) -> tuple[str, bool]:
        """Return why a connection failed, empty if it succeeded, and whether the tester itself is at fault."""
        host, port = endpoint
        secure = _is_secure(uri)
        try:
            async with asyncio.timeout(self._timeout_s):
                _, writer = await asyncio.open_connection(
                    host, port, ssl=self._context if secure else None, server_hostname=host if secure else None
                )
        except TimeoutError:
            return f"no connection within {self._timeout_s:g} s", False
        except socket.gaierror as error:
            # A name that does not exist is the orchestrator's fault, a resolver that does not answer is the tester's.
            return f"the name {host} cannot be resolved", error.errno not in _UNKNOWN_HOST
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return "the connection is closed before TLS begins", False
        except ssl.SSLError as error:
            if needs_tls:
                return f"TLS fails: {error.reason or 'no common version'}", False
            return "", False  # a server answers, with another TLS or none: that does not make it unreachable
        except (OSError, ValueError) as error:
            is_own_fault = isinstance(error, ValueError) or error.errno in _OWN_ERRORS
            return explain_connection_error(error, uri), is_own_fault
        # Closing in order would wait for the other side, which owes nothing any more.
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self._network_works_until = self._now() + _NETWORK_WORKS_S
        self._last_reachable, self._last_was_secure = endpoint, secure
        return "", False

    async def _reaches_another(self, target: tuple[str, int], *, needs_tls: bool) -> bool:
        """Return True if the tester can connect to another orchestrator than the target."""
        if self._reached_another_lately(target, needs_tls=needs_tls):
            return True
        # Many probes fail together where the network does. One of them asks around under the lock, and those behind it
        # use what it has learned.
        async with self._lock:
            if self._reached_another_lately(target, needs_tls=needs_tls):
                return True
            others = [
                endpoint
                for endpoint, uri in self._endpoints.items()
                if endpoint != target and (_is_secure(uri) or not needs_tls)
            ][:_MAX_OTHERS]
            for start in range(0, len(others), _BATCH):
                batch = others[start : start + _BATCH]
                results = await asyncio.gather(
                    *(
                        self._find_problem(self._endpoints[endpoint], endpoint, needs_tls=needs_tls)
                        for endpoint in batch
                    )
                )
                if any(not problem for problem, _ in results):
                    return True
            return False

    def _reached_another_lately(self, target: tuple[str, int], *, needs_tls: bool) -> bool:
        is_enough = self._last_reachable != target and (self._last_was_secure or not needs_tls)
        return self._now() < self._network_works_until and is_enough


def _is_secure(uri: str) -> bool:
    return not uri.strip().lower().startswith("http://")
