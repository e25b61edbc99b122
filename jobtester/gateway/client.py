"""One gateway over HTTP: jobs timed honestly, artifacts fetched within bounds, the CLI port read."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from jobtester import __version__
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.errors import GatewayError
from jobtester.gateway.request_timer import RequestTimer, TimedBody, open_timed_socket
from jobtester.gateway.result_files import FileFetcher, ResultFile
from jobtester.http import (
    Proxies,
    explain_connection_error,
    explain_https_required,
    is_plain_http_refusal,
    read_bounded,
)

USER_AGENT = f"livepeer-job-tester/{__version__}"
_KEPT_HEADERS = (
    "content-type", "content-encoding", "x-orchestrator-url", "livepeer-balance", "retry-after", "location",
)  # fmt: skip
_CONNECT_S = 10.0
_quoted = lru_cache(4096)(partial(quote, safe=""))  # the same service URIs again and again
_MOST_HEADER = 2**20  # bytes of a line or field, as Go's own client and server take them
_OVERHANG = 64  # bytes of a first token that may have come in the piece before


@dataclass(slots=True)
class GatewayClient:
    """Talks to one gateway. Every job gets a connection of its own.

    A kept connection that the gateway closes at the wrong moment looks exactly like the gateway's "no answer", which
    is charged to an orchestrator; so jobs do not share connections. Everything else does.
    """

    name: str
    url: str
    cli_url: str | None = None
    token: str | None = None
    verify_tls: bool = True
    artifact_networks: tuple[str, ...] = ()
    clock: Callable[[], float] = time.time
    _job_session: aiohttp.ClientSession | None = None
    _session: aiohttp.ClientSession | None = None
    _files: FileFetcher | None = None
    _proxies: Proxies = field(default_factory=Proxies.from_environment)
    _timers: dict[str, RequestTimer] = field(default_factory=dict)

    async def open(self) -> None:
        """Make the connection pools; call close() when done."""
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        limits: dict[str, Any] = {"ssl": True if self.verify_tls else False, "limit": 0}  # noqa: SIM210
        self._job_session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, socket_factory=open_timed_socket, **limits),
            headers=headers,
            max_line_size=_MOST_HEADER,
            max_field_size=_MOST_HEADER,
            timeout=aiohttp.ClientTimeout(total=None),  # the flight has its own
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(**limits),
            headers=headers,
            max_line_size=_MOST_HEADER,
            max_field_size=_MOST_HEADER,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, ceil_threshold=86_400),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._files = FileFetcher(
            self.url,
            token=self.token,
            verify_tls=self.verify_tls,
            connect_s=_CONNECT_S,
            user_agent=USER_AGENT,
            networks=[ipaddress.ip_network(one) for one in self.artifact_networks],
        )

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._job_session, self._session, self._files):
            if session is not None:
                await session.close()

    async def send(
        self,
        path: str,
        body: bytes,
        *,
        job_id: str,
        timeout_s: float,
        content_type: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int,
        first_token: re.Pattern[bytes] | None = None,
    ) -> Exchange:
        """Send one job and wait for the last byte of its answer, or for the end of `timeout_s` seconds.

        Never raises for what the network does: the exchange says how it ended. The clock runs from the moment at which
        the request is handed to the socket of a connection that stands. With `first_token` it is noted when the first
        bytes that match it are there, for streamed answers.
        """
        assert self._job_session is not None, "open() comes first"
        out = {"Content-Type": content_type, "X-Request-ID": job_id, **(headers or {})}
        if self.token:
            out["Authorization"] = f"Bearer {self.token}"
        named = "&".join(f"{key}={_quoted(value)}" for key, value in (query or {}).items())
        target = URL(f"{self.url}{path}?{named}" if named else self.url + path, encoded=True)
        started_at, begun = self.clock(), time.monotonic()
        scope = asyncio.timeout(_CONNECT_S)
        flight = RequestTimer(scope, timeout_s)
        self._timers[job_id] = flight
        answer = _ResponseReader(flight, max_bytes, first_token)
        ending, detail = Ending.ANSWERED, ""
        try:
            with flight:
                async with scope:
                    request = self._job_session.post(
                        target, data=TimedBody(body, flight), headers=out, allow_redirects=False,
                        **self._proxies.request_arguments(self.url),
                    )  # fmt: skip
                    async with request as response:
                        ending = await answer.read(response)
                    if ending is Ending.TOO_LARGE:
                        detail = f"more than {max_bytes} bytes"
        except TimeoutError:
            ending, detail = self._timed_out(flight)
        except aiohttp.ClientConnectorError as error:
            ending, detail = Ending.REFUSED, f"no connection to {self.url}: {self._cause(error, self.url)}"
        except aiohttp.ClientPayloadError as error:
            ending, detail = Ending.CUT_SHORT, _error_text(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            ending, detail = self._ending_of_broken(flight, answer, error)
        finally:
            del self._timers[job_id]
        if flight.ending is Ending.WITHDRAWN:
            ending, detail = flight.ending, flight.detail
        sent = flight.sent_at or begun
        return Exchange(
            ending=ending,
            started_at=started_at,
            sent_monotonic=sent,
            ended_monotonic=answer.ended or time.monotonic(),
            status=answer.status,
            body=answer.body(),
            headers=answer.headers,
            detail=detail,
            first_token_s=answer.first_token_at - sent if answer.first_token_at else None,
        )

    def cancel(self, job_id: str, ending: Ending, detail: str) -> None:
        """End a job's request now, with this ending; nothing happens if it has already ended."""
        flight = self._timers.get(job_id)
        if flight is not None and flight.ending is None:
            flight.ending, flight.detail = ending, detail
            flight.scope.reschedule(asyncio.get_running_loop().time())

    def abort(self) -> None:
        """End every job's request now, because the tester stops."""
        for job_id in list(self._timers):
            self.cancel(job_id, Ending.ABORTED, "the tester was stopped")

    def withdraw_unsent(self) -> None:
        """End every job's request whose connection does not stand yet, because no further job may leave."""
        for job_id, flight in list(self._timers.items()):
            if flight.sent_at is None:
                self.cancel(job_id, Ending.WITHDRAWN, "no further job may leave")

    async def is_alive(self, timeout_s: float = 5.0) -> bool:
        """Whether anything speaks HTTP at the gateway's job address."""
        return not await self.find_problem(timeout_s)

    async def find_problem(self, timeout_s: float = 5.0) -> str:
        """Return why nothing speaks HTTP at the gateway's job address, and what to do; empty if it answers."""
        assert self._session is not None, "open() comes first"
        if self._session.closed:  # a reload took the gateway away
            return "it is no longer configured"
        url = self.url + "/healthz"
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.get(url, allow_redirects=False, **self._proxies.request_arguments(self.url)) as response,
            ):
                start = await response.content.read(2000) if response.status == 400 else b""
                return explain_https_required(self.url) if is_plain_http_refusal(response.status, start) else ""
        except TimeoutError:
            return f"no answer within {timeout_s:g} s; check that the host runs and that no firewall drops the packets"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return self._cause(error, self.url)

    async def get_cli(self, path: str, *, timeout_s: float, max_bytes: int = 64 * 2**20) -> tuple[int, bytes]:
        """GET a path of the CLI port and give status and body. Raises GatewayError with a plain reason."""
        if not self.cli_url:
            raise GatewayError(f"gateways.{self.name}: cli_url is not set, and {path} is only there")
        assert self._session is not None, "open() comes first"
        way = self._proxies.request_arguments(self.cli_url)
        try:
            async with asyncio.timeout(timeout_s), self._session.get(self.cli_url + path, **way) as response:
                return response.status, await read_bounded(response.content, max_bytes)
        except TimeoutError as error:
            raise GatewayError(f"{self.cli_url}{path}: no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise GatewayError(f"{self.cli_url}{path}: {self._cause(error, self.cli_url)}") from error

    async def fetch(self, url: str, *, timeout_s: float, max_bytes: int) -> ResultFile:
        """Fetch a file that an answer names, relative to the gateway or absolute; never raises for what it meets."""
        assert self._files is not None, "open() comes first"
        return await self._files.fetch(url, timeout_s=timeout_s, max_bytes=max_bytes)

    def _cause(self, error: Exception, url: str) -> str:
        return explain_connection_error(error, url, self._proxies.proxy_for(url))

    def _timed_out(self, flight: RequestTimer) -> tuple[Ending, str]:
        if flight.ending is not None:
            return flight.ending, flight.detail
        if flight.sent_at is None:
            return Ending.REFUSED, f"no connection to {self.url} within {_CONNECT_S:g} s"
        return Ending.TIMEOUT, f"no complete answer within {flight.timeout_s:g} s"

    def _ending_of_broken(self, flight: RequestTimer, answer: _ResponseReader, error: Exception) -> tuple[Ending, str]:
        """Tell a connection closed without an answer from what is not HTTP or broke off.

        A gateway closes in order, also where it crashes over a job; a reset is a proxy's or the network's, and the
        gateway may not know of it.
        """
        if answer.status is not None:
            return Ending.CUT_SHORT, _error_text(error)
        if flight.sent_at is None:
            return Ending.REFUSED, f"no connection to {self.url}: {self._cause(error, self.url)}"
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return Ending.NO_REPLY, "the gateway closed the connection without an answer"
        if isinstance(error, aiohttp.ClientConnectionError | OSError):
            return Ending.CUT_SHORT, f"the connection broke: {_error_text(error)}"
        return Ending.CUT_SHORT, f"the gateway's answer is not HTTP: {_error_text(error)}"


class _ResponseReader:
    """Collects an answer's bytes up to a bound, and when they came."""

    def __init__(self, flight: RequestTimer, max_body: int, first_token: re.Pattern[bytes] | None = None) -> None:
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.ended: float | None = None
        self.first_token_at: float | None = None
        self._flight = flight
        self._max = max_body
        self._first_token = first_token
        self._body = bytearray()

    async def read(self, response: aiohttp.ClientResponse) -> Ending:
        """Read to the last byte, or until there is more than is allowed."""
        self.status = response.status
        self.headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        async for chunk in response.content.iter_any():
            known = len(self._body)
            if known + len(chunk) > self._max:
                response.close()
                self._body.clear()
                return Ending.TOO_LARGE
            self._body += chunk
            if self._first_token is not None and self._first_token.search(self._body, max(0, known - _OVERHANG)):
                self.first_token_at, self._first_token = self._flight.last_byte_at, None
        self.ended = self._flight.last_byte_at
        return Ending.ANSWERED

    def body(self) -> bytes:
        """Give what was read in one piece."""
        return bytes(self._body)


def _error_text(error: BaseException) -> str:
    """Give an exception's text, or its type's name where it has none."""
    return str(error) or type(error).__name__
