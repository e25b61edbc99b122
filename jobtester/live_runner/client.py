"""Send jobs to the live runners of any orchestrator, and ask orchestrators which runners they have."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp.resolver import DefaultResolver
from yarl import URL

from jobtester.domain.exchanges import Ending, Exchange, OutgoingRequest
from jobtester.gateway.address_guard import LocalAddressBlockingResolver
from jobtester.gateway.job_sender import CONNECT_S, MAX_HEADER_BYTES, USER_AGENT, JobSender
from jobtester.gateway.result_files import FileFetcher, ResultFile
from jobtester.http import Proxies, read_bounded

REDIRECTS = (301, 302, 303, 307, 308)
_NO_GATEWAY = URL()


class IncompleteAnswerError(ValueError):
    """An answer has begun and does not end in time."""


@dataclass(slots=True)
class LiveRunnerClient:
    """Talks to orchestrators, whose certificates are self-signed and not checked.

    Service URIs come from the chain, where anybody may write anything. So no request goes to an address of the tester
    itself, nor to one that is not public, unless it is in `networks`.
    """

    networks: Sequence[str] = ()
    url: str = "the orchestrators themselves"
    _resolver: LocalAddressBlockingResolver = field(init=False)
    sender: JobSender = field(init=False)
    _session: aiohttp.ClientSession | None = None
    _configured_session: aiohttp.ClientSession | None = None
    _channel_session: aiohttp.ClientSession | None = None
    _files: FileFetcher | None = None
    _proxies: Proxies = field(default_factory=Proxies.from_environment)

    async def open(self) -> None:
        """Open the connection pools; call close() when done."""
        networks = [ipaddress.ip_network(network) for network in self.networks]
        self._resolver = LocalAddressBlockingResolver(DefaultResolver(), _NO_GATEWAY, networks)
        self.sender = JobSender("the orchestrator", self._proxies, verify_tls=False, resolver=self._resolver)
        await self.sender.open()
        self._session = _open_session(
            aiohttp.TCPConnector(ssl=False, limit=0, force_close=True, resolver=self._resolver)
        )
        self._configured_session = _open_session(aiohttp.TCPConnector(force_close=True))
        # Segments follow each other within a second or two: a new handshake for each would add to their delay.
        self._channel_session = _open_session(aiohttp.TCPConnector(ssl=False, limit=0, resolver=self._resolver))
        self._files = FileFetcher("", verify_tls=False, connect_s=CONNECT_S, user_agent=USER_AGENT, networks=networks)

    async def close(self) -> None:
        """Close every connection."""
        if self._session is None or self._configured_session is None or self._files is None:
            return
        await self.sender.close()
        await self._session.close()
        await self._configured_session.close()
        if self._channel_session is not None:
            await self._channel_session.close()
        await self._files.close()
        await self._resolver.close()

    async def get(self, url: str, *, timeout_s: float, max_bytes: int) -> tuple[int, bytes]:
        """Return status and body of a URL that an orchestrator names; redirects are not followed.

        Raises OSError, TimeoutError, ValueError or aiohttp.ClientError for whatever stands against it.
        """
        assert self._session is not None, "open() comes first"
        return await self._read(self._session, url, timeout_s, max_bytes, is_trusted=False)

    async def get_configured(self, url: str, *, timeout_s: float, max_bytes: int) -> tuple[int, bytes]:
        """Return status and body of a URL of the configuration, at any address; its certificate is checked.

        Raises as get() does.
        """
        assert self._configured_session is not None, "open() comes first"
        return await self._read(self._configured_session, url, timeout_s, max_bytes, is_trusted=True)

    async def send(self, request: OutgoingRequest) -> Exchange:
        """Send one job to the whole URL of its request, and wait for the last byte of its response.

        Nothing is sent to a host that is not allowed; the exchange then ends as one that was refused.
        """
        try:
            await self._check_host(request.url)
        except ValueError as error:
            now = time.monotonic()
            return Exchange(Ending.REFUSED, time.time(), now, now, detail=str(error))
        return await self.sender.send(request)

    async def post(
        self, url: str, *, headers: Mapping[str, str], timeout_s: float, max_bytes: int
    ) -> tuple[int, bytes]:
        """Send an empty POST beside the timed jobs, and return status and body; redirects are not followed.

        Raises OSError, TimeoutError, ValueError or aiohttp.ClientError for whatever stands against it.
        """
        assert self._session is not None, "open() comes first"
        async with asyncio.timeout(timeout_s):
            await self._check_host(url)
            arguments = self._proxies.request_arguments(url)
            request = self._session.post(
                URL(url, encoded=True), data=b"", headers=headers, allow_redirects=False, **arguments
            )
            async with request as response:
                return response.status, await read_bounded(response.content, max_bytes)

    @asynccontextmanager
    async def open_request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: AsyncIterable[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request whose body or response may take as long as a video; the caller bounds it in size and time.

        Only connecting has a limit of its own. Redirects are not followed. Raises as get() does.
        """
        assert self._channel_session is not None, "open() comes first"
        async with asyncio.timeout(CONNECT_S):
            await self._check_host(url)
        request = self._channel_session.request(
            method,
            URL(url, encoded=True),
            headers=headers,
            data=data,
            allow_redirects=False,
            **self._proxies.request_arguments(url),
        )
        async with request as response:
            yield response

    async def fetch(self, url: str, *, timeout_s: float, max_bytes: int) -> ResultFile:
        """Fetch a file from an absolute URL; never raises for what it meets."""
        assert self._files is not None, "open() comes first"
        return await self._files.fetch(url, timeout_s=timeout_s, max_bytes=max_bytes)

    async def is_alive(self) -> bool:
        """Return True: no single process stands between the tester and all orchestrators."""
        return True

    async def _read(
        self, session: aiohttp.ClientSession, url: str, timeout_s: float, max_bytes: int, *, is_trusted: bool
    ) -> tuple[int, bytes]:
        has_begun = False
        try:
            async with asyncio.timeout(timeout_s):
                if not is_trusted:
                    await self._check_host(url)
                request = session.get(url, allow_redirects=False, **self._proxies.request_arguments(url))
                async with request as response:
                    has_begun = True
                    if response.status != 200:
                        return response.status, b""
                    return response.status, await read_bounded(response.content, max_bytes)
        except TimeoutError as error:
            if has_begun:
                raise IncompleteAnswerError(f"the answer is not complete within {timeout_s:g} s") from error
            raise

    async def _check_host(self, url: str) -> None:
        # aiohttp resolves names only, so an address that stands in the URL itself is checked here.
        parsed = URL(url)
        if not parsed.host or not await self._resolver.allows_host(parsed.host, parsed.port or 0):
            raise ValueError("it is an address of the tester itself, or of a private network")


def _open_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"},
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, ceil_threshold=86_400),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a few bytes of it may stand for gigabytes
    )
