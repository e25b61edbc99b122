"""Fetch the files that responses name, within limits and only from allowed addresses."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.resolver import DefaultResolver
from yarl import URL

from jobtester.gateway.address_guard import LocalAddressBlockingResolver, Network
from jobtester.http import Proxies

_MAX_HOPS = 4
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_URL_SHOWN = 100


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file that a response names, fetched in `seconds`; `problem` says why there is no usable body.

    `is_uncertain` means that neither a status nor a refusal came, so the tester's own network may be at fault.
    """

    url: str
    status: int | None = None
    body: bytes = b""
    content_type: str = ""
    seconds: float = 0.0
    problem: str = ""
    is_uncertain: bool = False


class FileRefusedError(Exception):
    """The file is not fetched, or not used; `status` is 200 where that is the file's own fault."""

    def __init__(self, problem: str, status: int | None = None) -> None:
        super().__init__(problem)
        self.status = status


class FileFetcher:
    """Fetches files for one gateway.

    The token goes to the gateway alone, and cookies to nobody. Compressed content is refused rather than decompressed:
    it was not asked for, and a few bytes of it may stand for gigabytes.
    """

    def __init__(
        self,
        gateway: str,
        *,
        token: str | None = None,
        verify_tls: bool = True,
        connect_s: float = 10.0,
        user_agent: str = "",
        networks: Sequence[Network] = (),
        resolver: AbstractResolver | None = None,
    ) -> None:
        """Fetch relative URLs from `gateway`; connecting may take `connect_s` seconds.

        Addresses that are not public are only fetched from where they are the gateway's own or in `networks`.
        """
        self._base = gateway.rstrip("/")
        self._gateway = URL(gateway)
        self._token = token
        self._resolver = LocalAddressBlockingResolver(resolver or DefaultResolver(), self._gateway, networks)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=verify_tls, limit=0, resolver=self._resolver),
            headers={"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
            # Without ceil_threshold aiohttp rounds timeouts of 5 s and more up to whole seconds.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s, ceil_threshold=86_400),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        self._proxies = Proxies.from_environment()

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, url: str, *, timeout_s: float, max_bytes: int) -> ResultFile:
        """Fetch a file, relative to the gateway or absolute; never raises for what the network or the file does."""
        started = time.monotonic()
        # A gateway may stand behind a proxy, under a path: what is relative to its root continues its whole URL. A text
        # that begins with two slashes names another host.
        is_relative = url.startswith("/") and not url.startswith("//")
        status: int | None = None
        is_uncertain = False
        try:
            async with asyncio.timeout(timeout_s):
                location = f"{self._base}{url}" if is_relative else urljoin(self._base, url)
                status, content_type, body = await self._follow_redirects(location, max_bytes)
        except TimeoutError:
            problem, is_uncertain = f"GET did not end within {timeout_s:g} s", True
        except FileRefusedError as error:
            status, problem = error.status, str(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            problem = f"GET failed: {str(error) or type(error).__name__}"
            # A refused connection is a host's word that nobody listens there; other errors may be the tester's network.
            is_uncertain = (
                isinstance(error, OSError | aiohttp.ClientConnectionError)
                and getattr(error, "errno", None) != errno.ECONNREFUSED
            )
        else:
            problem = "" if status == 200 else f"GET answered {status}"
            seconds = time.monotonic() - started
            return ResultFile(url, status, b"" if problem else body, content_type, seconds, problem)
        seconds = time.monotonic() - started
        return ResultFile(url, status, seconds=seconds, problem=problem, is_uncertain=is_uncertain)

    async def _follow_redirects(self, location: str, max_bytes: int) -> tuple[int, str, bytes]:
        """Return status, content type and body of where the redirects from a URL end."""
        for _ in range(_MAX_HOPS):
            # Each hop is checked like the first: a public server may redirect to a private address.
            url = await self._check_url(location)
            headers = {"Authorization": f"Bearer {self._token}"} if self._token and self._is_gateway(url) else {}
            proxy = self._proxies.request_arguments(str(url))
            async with self._session.get(url, headers=headers, allow_redirects=False, **proxy) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    location = urljoin(location, response.headers["Location"])
                    continue
                content = bytearray()
                if response.status == 200:
                    coding = response.headers.get("Content-Encoding", "identity").lower()
                    if coding != "identity":
                        raise FileRefusedError(f"comes as {coding[:20]}, although it was asked for as it is")
                    # Counted while it comes: a Content-Length may be missing or wrong.
                    async for chunk in response.content.iter_any():
                        content += chunk
                        if len(content) > max_bytes:
                            response.close()
                            raise FileRefusedError(f"larger than {max_bytes} bytes", 200)
                return response.status, response.headers.get("Content-Type", ""), bytes(content)
        raise FileRefusedError("too many redirects")

    async def _check_url(self, location: str) -> URL:
        """Return a URL that may be fetched.

        Raises FileRefusedError for one that leads nowhere, or to the tester itself.
        """
        shown = location[:_MAX_URL_SHOWN]
        if not location.isprintable() or " " in location:
            raise FileRefusedError(f"not an http(s) address: {shown!r}")
        url = URL(location, encoded=True)
        host = url.raw_host
        if url.scheme not in ("http", "https") or not host:
            raise FileRefusedError(f"not an http(s) address: {shown}")
        if not self._is_gateway(url) and not await self._resolver.allows_host(host, url.port or 0):
            raise FileRefusedError(
                f"points at an address of the tester itself, or of a private network: {shown}; "
                "gateways.artifact_networks names those that files may come from"
            )
        return url

    def _is_gateway(self, url: URL) -> bool:
        return (url.host, url.port) == (self._gateway.host, self._gateway.port)
