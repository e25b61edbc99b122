"""Send timed jobs over HTTP: each on a connection of its own, each answer within bounds."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from jobtester import __version__
from jobtester.domain.exchanges import Ending, Exchange, OutgoingRequest, SentRequest
from jobtester.gateway.request_timer import RequestTimer, TimedBody, open_timed_socket
from jobtester.http import Proxies, explain_connection_error

USER_AGENT = f"livepeer-job-tester/{__version__}"
CONNECT_S = 10.0
MAX_HEADER_BYTES = 2**20  # of a line or field, as Go's own client and server accept them
_KEPT_HEADERS = (
    "content-type", "content-encoding", "x-orchestrator-url", "livepeer-balance", "retry-after", "location",
    "x-content-type-options",
)  # fmt: skip
_SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie", "livepeer-payment", "livepeer-segment")
MASK = "****"
_MAX_TOKEN_OVERLAP = 64  # bytes of a first token that may have come in the chunk before


@dataclass(slots=True)
class JobSender:
    """Sends jobs to one peer, which messages call `peer`. Every job gets a connection of its own.

    An idle connection that the peer closes at the wrong moment looks exactly like a peer that ends a job without a
    response, which is charged to an orchestrator. So jobs do not share connections.
    """

    peer: str
    proxies: Proxies
    verify_tls: bool = True
    resolver: AbstractResolver | None = None
    clock: Callable[[], float] = time.time
    _session: aiohttp.ClientSession | None = None
    _in_flight: list[_RequestInFlight] = field(default_factory=list)

    async def open(self) -> None:
        """Open the connection pool; call close() when done."""
        self._session = aiohttp.ClientSession(
            # The tick limits how many jobs are in flight. A second limit here would make them wait where nobody sees
            # it.
            connector=aiohttp.TCPConnector(
                force_close=True,
                socket_factory=open_timed_socket,
                ssl=self.verify_tls,
                limit=0,
                resolver=self.resolver,
            ),
            headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            timeout=aiohttp.ClientTimeout(total=None),  # RequestTimer has its own
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nobody asked for compression, and a few bytes of it may stand for gigabytes
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def send(self, outgoing: OutgoingRequest, base: str = "") -> Exchange:
        """Send one job, below `base` where its URL is only a path, and wait for the last byte of its response.

        Never raises for what the network does: the exchange records how it ended. The clock runs from the moment at
        which the request is handed to the socket of an open connection.
        """
        assert self._session is not None, "open() comes first"
        url = URL(base + outgoing.url_with_query, encoded=True)
        base = base or outgoing.url
        method, headers = _method(outgoing), _headers(outgoing)
        started_at, started = self.clock(), time.monotonic()
        # Until the request is written the scope limits the connecting; then the timer reschedules it to the job's own.
        scope = asyncio.timeout(CONNECT_S)
        timer = RequestTimer(scope, outgoing.timeout_s)
        in_flight = _RequestInFlight(outgoing, timer)
        self._in_flight.append(in_flight)
        reader = _ResponseReader(timer, outgoing.max_bytes, outgoing.first_token)
        ending, detail = Ending.ANSWERED, ""
        try:
            with timer:
                async with scope:
                    request = self._session.request(
                        method, url, data=TimedBody(outgoing.body or b"", timer), headers=headers,
                        allow_redirects=False, **self.proxies.request_arguments(base),
                    )  # fmt: skip
                    async with request as response:
                        ending = await reader.read(response)
                    if ending is Ending.TOO_LARGE:
                        detail = f"more than {outgoing.max_bytes} bytes"
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            ending, detail = self._classify_error(error, base, timer, reader)
        finally:
            self._in_flight.remove(in_flight)
        # A withdrawn request may end in an error before its scope does: the timer refuses to start, or the connection
        # fails just then. Nothing has left either way, so it is not the peer that refused it.
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
            connect_s=timer.sent_at - started if timer.sent_at else None,
            first_byte_s=max(0.0, reader.first_byte_at - sent) if reader.first_byte_at else None,
            request=describe_request(outgoing, url),
        )

    def sent_at(self, outgoing: OutgoingRequest) -> float | None:
        """Return when a request in flight was handed to the socket, in monotonic seconds; None before, and after it."""
        return next((entry.timer.sent_at for entry in self._in_flight if entry.outgoing is outgoing), None)

    def cancel(self, job_id: str, ending: Ending, detail: str) -> None:
        """End a job's request now, with this ending; nothing happens if it has already ended."""
        for entry in self._in_flight:
            if entry.outgoing.job_id == job_id:
                entry.end(ending, detail)

    def abort(self) -> None:
        """End every job's request now, because the tester stops."""
        for entry in self._in_flight:
            if not entry.outgoing.outlives_abort:
                entry.end(Ending.ABORTED, "the tester was stopped")

    def withdraw_unsent(self) -> None:
        """End every job's first request whose connection is not open yet, because no further job may leave."""
        for entry in self._in_flight:
            if entry.timer.sent_at is None and not entry.outgoing.is_follow_up:
                entry.end(Ending.WITHDRAWN, "no further job may leave")

    def _classify_error(
        self, error: Exception, base: str, timer: RequestTimer, reader: _ResponseReader
    ) -> tuple[Ending, str]:
        """Return how a request ended that raised, and what happened."""
        if isinstance(error, TimeoutError):
            if timer.ending is not None:  # the tester ended it
                return timer.ending, timer.detail
            if timer.sent_at is None:
                return Ending.REFUSED, f"no connection to {base} within {CONNECT_S:g} s"
            return Ending.TIMEOUT, f"no complete answer within {timer.timeout_s:g} s"
        text = str(error) or type(error).__name__
        has_begun = reader.status is not None or isinstance(error, aiohttp.ClientPayloadError)
        if isinstance(error, aiohttp.ClientConnectorError) or (timer.sent_at is None and not has_begun):
            return (
                Ending.REFUSED,
                f"no connection to {base}: {explain_connection_error(error, base, self.proxies.proxy_for(base))}",
            )
        if has_begun:
            return Ending.CUT_SHORT, text
        # A gateway closes in order, also where it crashes over a job: no response then counts as its own. A reset is a
        # proxy's or the network's, and the gateway may not know of it, nor have ended the job.
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return Ending.NO_REPLY, f"{self.peer} closed the connection without an answer"
        if isinstance(error, aiohttp.ClientConnectionError | OSError):
            return Ending.CUT_SHORT, f"the connection broke: {text}"
        return Ending.CUT_SHORT, f"{self.peer}'s answer is not HTTP: {text}"


@dataclass(frozen=True, slots=True, eq=False)
class _RequestInFlight:
    """A request that has not ended, and its timer."""

    outgoing: OutgoingRequest
    timer: RequestTimer

    def end(self, ending: Ending, detail: str) -> None:
        """End it with this ending, unless it is ending already."""
        if self.timer.ending is None:
            self.timer.ending, self.timer.detail = ending, detail
            self.timer.scope.reschedule(asyncio.get_running_loop().time())


class _ResponseReader:
    """Collects a response's bytes up to a bound, and when they came."""

    def __init__(self, timer: RequestTimer, max_bytes: int, first_token: re.Pattern[bytes] | None = None) -> None:
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.body = bytearray()
        self.ended: float | None = None
        self.first_byte_at: float | None = None
        self.first_token_at: float | None = None
        self._timer = timer
        self._max_bytes = max_bytes
        self._first_token = first_token

    async def read(self, response: aiohttp.ClientResponse) -> Ending:
        """Read to the last byte, or until there is more than is allowed."""
        self.status = response.status
        # Not at the socket's first byte: with TLS that is not yet the answer's.
        self.first_byte_at = self._timer.last_byte_at
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


def describe_request(outgoing: OutgoingRequest, url: URL | None = None) -> SentRequest:
    """Return a request as people may see it; `url` is the whole one where its own is only a path."""
    url = url or URL(outgoing.url_with_query, encoded=True)
    return SentRequest(_method(outgoing), _mask_url(url), _mask_headers(_headers(outgoing)))


def _method(outgoing: OutgoingRequest) -> str:
    return "POST" if outgoing.body is not None else "GET"


def _headers(outgoing: OutgoingRequest) -> dict[str, str]:
    return {"X-Request-ID": outgoing.job_id, **outgoing.headers}


def _mask_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with the values of secret ones masked, but for the scheme of a token."""
    masked = {}
    for name, value in headers.items():
        is_secret = name.lower() in _SECRET_HEADERS
        scheme = f"{value.partition(' ')[0]} " if is_secret and " " in value else ""
        masked[name] = f"{scheme}{MASK}" if is_secret else value
    return masked


def _mask_url(url: URL) -> str:
    """Return a URL whose user and password, if it has any, are masked together."""
    is_open = url.raw_user is None and url.raw_password is None
    return str(url if is_open else url.with_user(None).with_user(MASK))
