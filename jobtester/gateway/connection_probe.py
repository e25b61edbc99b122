"""Connect to an orchestrator's service URI as a gateway would, to tell a dead one from one that was not selected."""

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

_OTHERS = 8  # orchestrators that are tried to tell whether the tester's own network works
_NETWORK_WORKS_S = 30.0  # for how long it is believed that it does
# What a machine without a way out of its own network sees, and one that has run out of something.
_OWN = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS})
_UNKNOWN_NAMES = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class ConnectionProbe:
    """Connects over TCP and TLS, a second time after a pause; sends nothing else. One tick's knowledge.

    Orchestrators sign their own certificates, so none is checked.
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
        """Know everybody who may be tried; each attempt to connect takes `timeout_s` seconds at most."""
        self._endpoints = {where: uri for uri in service_uris if (where := parse_endpoint(uri)) is not None}
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._sleep = sleep
        self._now = now
        self._asking = asyncio.Lock()
        self._works_until = float("-inf")
        self._last_standing: tuple[str, int] | None = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    async def probe(self, uri: str) -> Connection:
        """Return what a connection to a service URI finds; never raises for what the network does."""
        where = parse_endpoint(uri)
        if where is None:
            return Connection(ConnectionState.UNKNOWN, f"{uri} is no address to connect to")
        for attempt in range(2):
            if attempt:
                await self._sleep(self._pause_s)
            problem, own = await self._problem(uri, where)
            if not problem:
                return Connection(ConnectionState.REACHABLE, f"the tester can connect to {uri}")
            if own:
                return Connection(ConnectionState.UNKNOWN, f"the tester cannot connect to anything: {problem}")
        if not await self._reaches_others(where):
            line = f"the tester cannot connect to {uri}, and to no other orchestrator either: {problem}"
            return Connection(ConnectionState.UNKNOWN, line)
        return Connection(
            ConnectionState.UNREACHABLE,
            f"the tester tried to connect to {uri} twice and could not, while another orchestrator answers: {problem}",
        )

    async def _problem(self, uri: str, where: tuple[str, int]) -> tuple[str, bool]:
        """Return why the connection failed, empty if it succeeded, and whether the tester itself is at fault."""
        secure = not uri.strip().lower().startswith("http://")
        try:
            async with asyncio.timeout(self._timeout_s):
                _, writer = await asyncio.open_connection(
                    *where, ssl=self._context if secure else None, server_hostname=where[0] if secure else None
                )
        except TimeoutError:
            return f"no connection within {self._timeout_s:g} s", False
        except socket.gaierror as error:
            return f"the name {where[0]} cannot be resolved", error.errno not in _UNKNOWN_NAMES
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return "the connection is closed before TLS begins", False
        except ssl.SSLError:
            return "", False  # a server answers, with another TLS or none: that does not make it unreachable
        except (OSError, ValueError) as error:
            own = isinstance(error, OSError) and error.errno in _OWN
            return explain_connection_error(error, uri), own or isinstance(error, ValueError)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self._works_until = self._now() + _NETWORK_WORKS_S
        self._last_standing = where
        return "", False

    async def _reaches_others(self, target: tuple[str, int]) -> bool:
        """Return True if the tester can connect to another orchestrator than the target."""
        if self._now() < self._works_until and self._last_standing != target:
            return True
        async with self._asking:
            if self._now() < self._works_until and self._last_standing != target:
                return True
            others = [where for where in self._endpoints if where != target]
            for start in range(0, min(len(others), 4 * _OTHERS), _OTHERS):
                found = await asyncio.gather(
                    *(self._problem(self._endpoints[where], where) for where in others[start : start + _OTHERS])
                )
                if any(not problem for problem, _ in found):
                    return True
            return False
