"""Talk to one gateway over HTTP: send timed jobs, fetch result files within bounds, read the CLI port."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import aiohttp

from jobtester.domain.exchanges import Exchange, OutgoingRequest
from jobtester.errors import GatewayError, GatewayRefusedError
from jobtester.gateway.job_sender import CONNECT_S, MAX_HEADER_BYTES, USER_AGENT, JobSender
from jobtester.gateway.result_files import FileFetcher, ResultFile
from jobtester.http import (
    Proxies,
    explain_connection_error,
    explain_https_required,
    is_plain_http_refusal,
    read_bounded,
)

_LIVENESS_TIMEOUT_S = 5.0
_MAX_CLI_BYTES = 64 * 2**20


@dataclass(slots=True)
class GatewayClient:
    """Talks to one gateway. Every job gets a connection of its own; everything else shares connections."""

    name: str
    url: str
    cli_url: str | None = None
    token: str | None = None
    verify_tls: bool = True
    artifact_networks: tuple[str, ...] = ()
    clock: Callable[[], float] = time.time
    _session: aiohttp.ClientSession | None = None
    _files: FileFetcher | None = None
    _proxies: Proxies = field(default_factory=Proxies.from_environment)
    sender: JobSender = field(init=False)

    def __post_init__(self) -> None:
        self.sender = JobSender("the gateway", self._proxies, verify_tls=self.verify_tls, clock=self.clock)

    async def open(self) -> None:
        """Open the connection pools; call close() when done."""
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        await self.sender.open()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.verify_tls, limit=0),
            headers=headers,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            # Without ceil_threshold aiohttp rounds timeouts of 5 s and more up to whole seconds.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, ceil_threshold=86_400),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._files = FileFetcher(
            self.url,
            token=self.token,
            verify_tls=self.verify_tls,
            connect_s=CONNECT_S,
            user_agent=USER_AGENT,
            networks=[ipaddress.ip_network(network) for network in self.artifact_networks],
        )

    async def close(self) -> None:
        """Close every connection."""
        for session in (self.sender, self._session, self._files):
            if session is not None:
                await session.close()

    async def send(self, request: OutgoingRequest) -> Exchange:
        """Send one job to a path of the gateway, and wait for the last byte of its response, as the sender does."""
        if self.token:
            request = replace(request, headers={**request.headers, "Authorization": f"Bearer {self.token}"})
        return await self.sender.send(request, base=self.url)

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

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        content_type: str = "",
        timeout_s: float,
        max_bytes: int,
    ) -> tuple[int, bytes]:
        """Return status and body of a call to the job port that is no timed job.

        Raises GatewayError, and of that GatewayRefusedError if there was no connection.
        """
        assert self._session is not None, "open() comes first"
        headers = {"Content-Type": content_type} if content_type else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = self._session.request(
            method, self.url + path, data=body or None, headers=headers, allow_redirects=False,
            **self._proxies.request_arguments(self.url),
        )  # fmt: skip
        try:
            async with asyncio.timeout(timeout_s), request as response:
                return response.status, await read_bounded(response.content, max_bytes)
        except TimeoutError as error:
            raise GatewayError(f"{self.url}{path}: no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            kind = GatewayRefusedError if isinstance(error, aiohttp.ClientConnectorError) else GatewayError
            raise kind(f"{self.url}{path}: {self._explain(error, self.url)}") from error

    async def fetch(self, url: str, *, timeout_s: float, max_bytes: int) -> ResultFile:
        """Fetch a file that a response names, relative to the gateway or absolute; never raises for what it meets."""
        assert self._files is not None, "open() comes first"
        return await self._files.fetch(url, timeout_s=timeout_s, max_bytes=max_bytes)

    def _explain(self, error: Exception, url: str) -> str:
        return explain_connection_error(error, url, self._proxies.proxy_for(url))
