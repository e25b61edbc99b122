"""The orchestrators that a gateway knows: its webhook's current list, and the info calls to those on it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp

from jobtester.simulator import go_livepeer
from jobtester.simulator.orchestrator import Orchestrator
from jobtester.simulator.scenario import GatewaySpec


class ReadWriteLock:
    """Go's sync.RWMutex, which go-livepeer holds around its list of orchestrators.

    Many readers or one writer. A waiting writer goes before new readers: an info call that hangs holds the read lock,
    the next change of the list waits for it, and every later job waits behind that change. Jobs that have nothing to do
    with the silent orchestrator are held up, which a tester must not blame on theirs.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._readers = 0
        self._writers_waiting = 0
        self._writing = False

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        """Hold the lock together with other readers."""
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
        """Hold the lock alone."""
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


class OrchestratorPool:
    """The list that all jobs of a gateway share. Without a webhook it is the whole network."""

    def __init__(
        self,
        spec: GatewaySpec,
        nodes_by_host: Mapping[str, Orchestrator],
        webhook_url: Callable[[], str | None],
    ) -> None:
        """Create an empty list; `nodes_by_host` is the whole network by host and port."""
        self._spec, self._nodes_by_host, self._webhook_url = spec, nodes_by_host, webhook_url
        self._lock = ReadWriteLock()
        self._body: bytes | None = None
        self._uris: tuple[str, ...] = ()
        self._fetched_at = -1e9
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections to the webhook."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def refresh_uris(self) -> tuple[str, ...]:
        """Query the webhook and return the current URIs. A standard gateway reuses a response for `webhook_cache_s`."""
        url = self._webhook_url()
        if url is None or self._spec.mode == "query":
            return tuple(node.spec.service_uri for node in self._nodes_by_host.values())
        cache_s = self._spec.webhook_cache_s if self._spec.mode == "stock" else 0.0
        async with self._lock.read():
            is_fresh = time.monotonic() - self._fetched_at < cache_s
        if not is_fresh:
            body = await self._fetch_webhook(url)
            uris = _parse_webhook_body(body)
            if body is not None and uris is not None:
                is_changed = body != self._body
                async with self._lock.write():
                    self._fetched_at = time.monotonic()
                    if is_changed:
                        self._body, self._uris = body, uris
        return self._uris

    async def collect_infos(self) -> list[Orchestrator]:
        """Refresh the list and return those on it that answer an info call; the list cannot change meanwhile."""
        refreshed = await self.refresh_uris()
        async with self._lock.read():
            uris = refreshed if self._webhook_url() is None or self._spec.mode == "query" else self._uris
            return await self.query_infos(uris)

    async def query_infos(self, uris: Sequence[str]) -> list[Orchestrator]:
        """Return the orchestrators that answer an info call within `discovery_timeout`.

        If none does, return after `info_timeout` only: go-livepeer waits for the first answer until its calls end.
        """
        nodes = [node for uri in uris if (node := self.find_node(uri)) is not None]
        if not nodes:
            return []
        calls = {asyncio.create_task(node.answer_info(), name="info"): node for node in nodes}
        try:
            timeout_s = min(self._spec.discovery_timeout, self._spec.info_timeout)
            done, _ = await asyncio.wait(calls, timeout=timeout_s)
            if not done:
                await asyncio.sleep(self._spec.info_timeout - timeout_s)
            return [node for call, node in calls.items() if call in done]
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def find_node(self, uri: str) -> Orchestrator | None:
        """Return the orchestrator at a service URI."""
        return self._nodes_by_host.get(go_livepeer.host_and_port(uri))

    async def _fetch_webhook(self, url: str) -> bytes | None:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        timeout = aiohttp.ClientTimeout(total=self._spec.webhook_timeout, ceil_threshold=1e9)
        try:
            async with self._session.get(url, timeout=timeout) as response:
                body = await response.read()
                return body if 200 <= response.status < 300 else None
        except (aiohttp.ClientError, TimeoutError):
            return None


def _parse_webhook_body(body: bytes | None) -> tuple[str, ...] | None:
    """Return the URIs of a webhook's response, None if it is unusable as a whole."""
    try:
        entries = json.loads(body or b"!")
    except ValueError:
        return None
    if entries is None:
        return ()
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    addresses = [entry.get("address") for entry in entries]
    return tuple(address for address in addresses if isinstance(address, str) and _is_valid_uri(address))


def _is_valid_uri(address: str) -> bool:
    try:
        return bool(urlsplit(address if "//" in address else f"https://{address}").hostname)
    except ValueError:
        return False
