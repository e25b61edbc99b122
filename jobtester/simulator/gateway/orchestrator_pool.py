"""The orchestrators a gateway knows: its webhook's current list, and the info calls that hold it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp

from jobtester.simulator import go_livepeer, orchestrator, scenario


class ReadWriteLock:
    """Many readers or one writer; a waiting writer goes before new readers, as in Go."""

    def __init__(self) -> None:
        """Begin free."""
        self._changed = asyncio.Condition()
        self._readers = 0
        self._writers_waiting = 0
        self._writing = False

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        """Hold it with other readers."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            await asyncio.shield(self._wake())

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        """Hold it alone."""
        async with self._changed:
            self._writers_waiting += 1
            try:
                await self._changed.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
            finally:
                self._writers_waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            self._writing = False
            await asyncio.shield(self._wake())

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class Pool:
    """The list that all jobs of a gateway share. Without a webhook it is the whole network."""

    def __init__(
        self,
        spec: scenario.GatewaySpec,
        network: Mapping[str, orchestrator.Orchestrator],
        webhook_url: Callable[[], str | None],
    ) -> None:
        """Begin with an empty list; `network` is everybody by host and port."""
        self._spec, self._network, self._webhook_url = spec, network, webhook_url
        self._lock = ReadWriteLock()
        self._body: bytes | None = None
        self._uris: tuple[str, ...] = ()
        self._asked_at = -1e9
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def refresh(self) -> tuple[str, ...]:
        """GET the webhook and take its answer, unless the last one is fresh enough; return the current URIs."""
        url = self._webhook_url()
        if url is None or self._spec.mode == "query":
            return tuple(node.spec.service_uri for node in self._network.values())
        cached_s = self._spec.webhook_cache_s if self._spec.mode == "stock" else 0.0
        async with self._lock.read():
            fresh = time.monotonic() - self._asked_at < cached_s
        if not fresh:
            body = await self._get(url)
            uris = _uris(body)
            if body is not None and uris is not None:
                changed = body != self._body
                async with self._lock.write():
                    self._asked_at = time.monotonic()
                    if changed:
                        self._body, self._uris = body, uris
        return self._uris

    async def infos(self) -> list[orchestrator.Orchestrator]:
        """Refresh, then ask everybody on the list for their info; the list cannot change until they have answered."""
        everybody = await self.refresh()
        async with self._lock.read():
            listed = everybody if self._webhook_url() is None or self._spec.mode == "query" else self._uris
            return await self.ask(listed)

    async def ask(self, uris: Sequence[str]) -> list[orchestrator.Orchestrator]:
        """Return those who answer an info call in time; if nobody does, only when the call is given up altogether."""
        nodes = [node for uri in uris if (node := self.find(uri)) is not None]
        if not nodes:
            return []
        calls = {asyncio.create_task(node.info(), name="info"): node for node in nodes}
        try:
            limit = min(self._spec.discovery_timeout, self._spec.info_timeout)
            done, _ = await asyncio.wait(calls, timeout=limit)
            if not done:
                await asyncio.sleep(self._spec.info_timeout - limit)
            return [node for call, node in calls.items() if call in done]
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def find(self, uri: str) -> orchestrator.Orchestrator | None:
        """Look who listens at a service URI."""
        return self._network.get(go_livepeer.same_host(uri))

    async def _get(self, url: str) -> bytes | None:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        timeout = aiohttp.ClientTimeout(total=self._spec.webhook_timeout, ceil_threshold=1e9)
        try:
            async with self._session.get(url, timeout=timeout) as response:
                body = await response.read()
                return body if 200 <= response.status < 300 else None
        except (aiohttp.ClientError, TimeoutError):
            return None


def _uris(body: bytes | None) -> tuple[str, ...] | None:
    """Read a webhook's answer; None where it is unusable as a whole."""
    try:
        entries = json.loads(body or b"!")
    except ValueError:
        return None
    if entries is None:
        return ()
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    addresses = [entry.get("address") for entry in entries]
    return tuple(address for address in addresses if isinstance(address, str) and _parses(address))


def _parses(address: str) -> bool:
    try:
        return bool(urlsplit(address if "//" in address else f"https://{address}").hostname)
    except ValueError:
        return False
