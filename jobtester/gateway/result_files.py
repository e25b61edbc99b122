"""Artifacts: files that an answer names, fetched within bounds and from nowhere they must not come from."""

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

from jobtester.gateway.address_guard import ForbiddenAddressError, LocalAddressBlockingResolver, Network
from jobtester.http import BodyTooLargeError, Proxies, read_bounded

_HOPS = 4
_MOVED = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file that an answer names, fetched: `problem` says why there is no usable body, `seconds` how long it took.

    `unsure` means that no status and no refusal came, so that the fault may be in the tester's own network.
    """

    url: str
    status: int | None = None
    body: bytes = b""
    content_type: str = ""
    seconds: float = 0.0
    problem: str = ""
    is_uncertain: bool = False


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, ConnectionRefusedError) or getattr(error, "errno", None) == errno.ECONNREFUSED


class FileRefusedError(Exception):
    """The file is not fetched, or not used; `status` is 200 where that is the file's own fault."""

    def __init__(self, problem: str, status: int | None = None) -> None:
        """Keep both."""
        super().__init__(problem)
        self.status = status


class FileFetcher:
    """Fetches files for one gateway.

    Nothing is told to anybody but the gateway, not even a cookie. What comes compressed is not opened: nobody was asked
    for that, and a few bytes of it may stand for gigabytes.
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
        """Fetch what is relative from `gateway`, which gets the token; connecting may take `connect_s` seconds.

        What is not public is only fetched from the gateway itself and from `networks`.
        """
        self._base = gateway.rstrip("/")
        self._gateway = URL(gateway)
        self._token = token
        self._resolver = LocalAddressBlockingResolver(resolver or DefaultResolver(), self._gateway, networks)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=verify_tls, limit=0, resolver=self._resolver),
            headers={"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
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
        """Fetch a file, relative to the gateway or absolute; never raises for what it meets.

        What is relative goes on where the gateway's own address ends: it may stand behind a proxy, under a path.
        """
        began = time.monotonic()
        within = url.startswith("/") and not url.startswith("//")
        status: int | None = None
        unsure = False
        try:
            async with asyncio.timeout(timeout_s):
                status, kind, body = await self._follow_redirects(
                    f"{self._base}{url}" if within else urljoin(self._base, url), max_bytes
                )
        except TimeoutError:
            problem, unsure = f"GET did not end within {timeout_s:g} s", True
        except FileRefusedError as refusal:
            status, problem = refusal.status, str(refusal)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            problem = f"GET failed: {str(error) or type(error).__name__}"
            unsure = isinstance(error, OSError | aiohttp.ClientConnectionError) and not _is_refusal(error)
        else:
            problem = "" if status == 200 else f"GET answered {status}"
            return ResultFile(url, status, b"" if problem else body, kind, time.monotonic() - began, problem)
        return ResultFile(url, status, seconds=time.monotonic() - began, problem=problem, is_uncertain=unsure)

    async def _follow_redirects(self, where: str, max_body: int) -> tuple[int, str, bytes]:
        """Follow redirections, each looked at like the first; give status, type and content of the last."""
        for _ in range(_HOPS):
            url = await self._check_url(where)
            headers = {"Authorization": f"Bearer {self._token}"} if self._token and self._is_gateway(url) else {}
            way = self._proxies.request_arguments(str(url))
            async with self._session.get(url, headers=headers, allow_redirects=False, **way) as response:
                if response.status in _MOVED and "Location" in response.headers:
                    where = urljoin(where, response.headers["Location"])
                    continue
                coding = response.headers.get("Content-Encoding", "identity").lower()
                if response.status == 200 and coding != "identity":
                    raise FileRefusedError(f"comes as {coding[:20]}, although it was asked for as it is")
                try:
                    content = await read_bounded(response.content, max_body) if response.status == 200 else b""
                except BodyTooLargeError as error:
                    response.close()
                    raise FileRefusedError(f"larger than {max_body} bytes", 200) from error
                return response.status, response.headers.get("Content-Type", ""), content
        raise FileRefusedError("too many redirects")

    async def _check_url(self, where: str) -> URL:
        """Give the address as it is asked for.

        Raises FileRefusedError for one that leads nowhere, or to the tester itself.
        """
        shown = where[:100]
        if not where.isprintable() or " " in where:
            raise FileRefusedError(f"not an http(s) address: {shown!r}")
        url = URL(where, encoded=True)
        host = url.raw_host
        if url.scheme not in ("http", "https") or not host:
            raise FileRefusedError(f"not an http(s) address: {shown}")
        if self._is_gateway(url):
            return url
        try:
            allowed = await self._resolver.allows_address(host, url.port or 0)
        except ValueError:
            allowed = await self._may_stand_for(host, url.port or 0)
        if not allowed:
            raise FileRefusedError(
                f"points at an address of the tester itself, or of a private network: {shown}; "
                "gateways.artifact_networks names those that files may come from"
            )
        return url

    async def _may_stand_for(self, name: str, port: int) -> bool:
        """Whether a name leads to where files may come from; one that is not known here may be known to a proxy."""
        try:
            await self._resolver.resolve_allowed(name, port)
        except ForbiddenAddressError:
            return False
        except OSError:
            pass
        return True

    def _is_gateway(self, url: URL) -> bool:
        """Tell whether an address is the gateway's own."""
        return (url.host, url.port) == (self._gateway.host, self._gateway.port)
