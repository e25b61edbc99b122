"""Talk to one gateway over HTTP: send timed jobs, fetch result files within bounds, read the CLI port."""

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
_LIVENESS_TIMEOUT_S = 5.0
_MAX_HEADER_BYTES = 2**20  # of a line or field, as Go's own client and server accept them
_MAX_CLI_BYTES = 64 * 2**20
_MAX_TOKEN_OVERLAP = 64  # bytes of a first token that may have come in the chunk before
_quote = lru_cache(4096)(partial(quote, safe=""))  # the same service URIs again and again


@dataclass(slots=True)
class GatewayClient:
    """Talks to one gateway. Every job gets a connection of its own.

    An idle connection that the gateway closes at the wrong moment looks exactly like a gateway that ends a job without
    a response, which is charged to an orchestrator. So jobs do not share connections; everything else does.
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
        """Open the connection pools; call close() when done."""
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        # The tick limits how many jobs are in flight. A second limit here would make them wait where nobody sees it.
        limits: dict[str, Any] = {"ssl": True if self.verify_tls else False, "limit": 0}  # noqa: SIM210
        self._job_session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, socket_factory=open_timed_socket, **limits),
            headers=headers,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            timeout=aiohttp.ClientTimeout(total=None),  # RequestTimer has its own
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nobody asked for compression, and a few bytes of it may stand for gigabytes
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(**limits),
            headers=headers,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            # Without ceil_threshold aiohttp rounds timeouts of 5 s and more up to whole seconds.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, ceil_threshold=86_400),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._files = FileFetcher(
            self.url,
            token=self.token,
            verify_tls=self.verify_tls,
            connect_s=_CONNECT_S,
            user_agent=USER_AGENT,
            networks=[ipaddress.ip_network(network) for network in self.artifact_networks],
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
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int,
        first_token: re.Pattern[bytes] | None = None,
    ) -> Exchange:
        """Send one job and wait for the last byte of its response, for `timeout_s` seconds at most.

        Never raises for what the network does: the exchange records how it ended. The clock runs from the moment at
        which the request is handed to the socket of an open connection. With `first_token`, for streamed responses, the
        exchange also has the time until the first bytes that match it.
        """
        assert self._job_session is not None, "open() comes first"
        request_headers = {"X-Request-ID": job_id, **(headers or {})}
        if self.token:
            request_headers["Authorization"] = f"Bearer {self.token}"
        # Quoted here and passed as encoded: yarl would leave the slashes and colons of a service URI as they are.
        encoded_query = "&".join(f"{key}={_quote(value)}" for key, value in (query or {}).items())
        url = URL(f"{self.url}{path}?{encoded_query}" if encoded_query else self.url + path, encoded=True)
        started_at, started = self.clock(), time.monotonic()
        # Until the request is written the scope limits the connecting; then the timer reschedules it to the job's own.
        scope = asyncio.timeout(_CONNECT_S)
        timer = RequestTimer(scope, timeout_s)
        self._timers[job_id] = timer
        reader = _ResponseReader(timer, max_bytes, first_token)
        ending, detail = Ending.ANSWERED, ""
        try:
            with timer:
                async with scope:
                    request = self._job_session.post(
                        url, data=TimedBody(body, timer), headers=request_headers, allow_redirects=False,
                        **self._proxies.request_arguments(self.url),
                    )  # fmt: skip
                    async with request as response:
                        ending = await reader.read(response)
                    if ending is Ending.TOO_LARGE:
                        detail = f"more than {max_bytes} bytes"
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            ending, detail = self._classify_error(error, timer, reader)
        finally:
            del self._timers[job_id]
        # A withdrawn request may end in an error before its scope does: the timer refuses to start, or the connection
        # fails just then. Nothing has left either way, so it is not the gateway that refused it.
        if timer.ending is Ending.WITHDRAWN:
            ending, detail = timer.ending, timer.detail
        sent = timer.sent_at or started
        return Exchange(
            ending=ending,
            started_at=started_at,
            sent_monotonic=sent,
            ended_monotonic=reader.ended or time.monotonic(),
            status=reader.status,
            body=bytes(reader.body),
            headers=reader.headers,
            detail=detail,
            first_token_s=reader.first_token_at - sent if reader.first_token_at else None,
        )

    def cancel(self, job_id: str, ending: Ending, detail: str) -> None:
        """End a job's request now, with this ending; nothing happens if it has already ended."""
        timer = self._timers.get(job_id)
        if timer is not None and timer.ending is None:
            timer.ending, timer.detail = ending, detail
            timer.scope.reschedule(asyncio.get_running_loop().time())

    def abort(self) -> None:
        """End every job's request now, because the tester stops."""
        for job_id in list(self._timers):
            self.cancel(job_id, Ending.ABORTED, "the tester was stopped")

    def withdraw_unsent(self) -> None:
        """End every job's request whose connection is not open yet, because no further job may leave."""
        for job_id, timer in list(self._timers.items()):
            if timer.sent_at is None:
                self.cancel(job_id, Ending.WITHDRAWN, "no further job may leave")

    async def is_alive(self, timeout_s: float = _LIVENESS_TIMEOUT_S) -> bool:
        """Return True if anything speaks HTTP at the gateway's job address."""
        return not await self.find_problem(timeout_s)

    async def find_problem(self, timeout_s: float = _LIVENESS_TIMEOUT_S) -> str:
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
            return self._explain(error, self.url)

    async def get_cli(self, path: str, *, timeout_s: float, max_bytes: int = _MAX_CLI_BYTES) -> tuple[int, bytes]:
        """Return the status and body of a path of the CLI port. Raises GatewayError with a plain reason."""
        if not self.cli_url:
            raise GatewayError(f"gateways.{self.name}: cli_url is not set, and {path} is only there")
        assert self._session is not None, "open() comes first"
        proxy = self._proxies.request_arguments(self.cli_url)
        try:
            async with asyncio.timeout(timeout_s), self._session.get(self.cli_url + path, **proxy) as response:
                return response.status, await read_bounded(response.content, max_bytes)
        except TimeoutError as error:
            raise GatewayError(f"{self.cli_url}{path}: no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise GatewayError(f"{self.cli_url}{path}: {self._explain(error, self.cli_url)}") from error

    async def fetch(self, url: str, *, timeout_s: float, max_bytes: int) -> ResultFile:
        """Fetch a file that a response names, relative to the gateway or absolute; never raises for what it meets."""
        assert self._files is not None, "open() comes first"
        return await self._files.fetch(url, timeout_s=timeout_s, max_bytes=max_bytes)

    def _explain(self, error: Exception, url: str) -> str:
        return explain_connection_error(error, url, self._proxies.proxy_for(url))

    def _classify_error(self, error: Exception, timer: RequestTimer, reader: _ResponseReader) -> tuple[Ending, str]:
        """Return how a request ended that raised, and what happened."""
        if isinstance(error, TimeoutError):
            if timer.ending is not None:  # the tester ended it
                return timer.ending, timer.detail
            if timer.sent_at is None:
                return Ending.REFUSED, f"no connection to {self.url} within {_CONNECT_S:g} s"
            return Ending.TIMEOUT, f"no complete answer within {timer.timeout_s:g} s"
        text = str(error) or type(error).__name__
        has_begun = reader.status is not None or isinstance(error, aiohttp.ClientPayloadError)
        if isinstance(error, aiohttp.ClientConnectorError) or (timer.sent_at is None and not has_begun):
            return Ending.REFUSED, f"no connection to {self.url}: {self._explain(error, self.url)}"
        if has_begun:
            return Ending.CUT_SHORT, text
        # A gateway closes in order, also where it crashes over a job: no response then counts as its own. A reset is a
        # proxy's or the network's, and the gateway may not know of it, nor have ended the job.
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return Ending.NO_REPLY, "the gateway closed the connection without an answer"
        if isinstance(error, aiohttp.ClientConnectionError | OSError):
            return Ending.CUT_SHORT, f"the connection broke: {text}"
        return Ending.CUT_SHORT, f"the gateway's answer is not HTTP: {text}"


class _ResponseReader:
    """Collects a response's bytes up to a bound, and when they came."""

    def __init__(self, timer: RequestTimer, max_bytes: int, first_token: re.Pattern[bytes] | None = None) -> None:
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.body = bytearray()
        self.ended: float | None = None
        self.first_token_at: float | None = None
        self._timer = timer
        self._max_bytes = max_bytes
        self._first_token = first_token

    async def read(self, response: aiohttp.ClientResponse) -> Ending:
        """Read to the last byte, or until there is more than is allowed."""
        self.status = response.status
        self.headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        async for chunk in response.content.iter_any():
            length = len(self.body)
            if length + len(chunk) > self._max_bytes:
                response.close()
                self.body.clear()
                return Ending.TOO_LARGE
            self.body += chunk
            if self._first_token is not None and self._first_token.search(
                self.body, max(0, length - _MAX_TOKEN_OVERLAP)
            ):
                self.first_token_at, self._first_token = self._timer.last_byte_at, None
        self.ended = self._timer.last_byte_at
        return Ending.ANSWERED
