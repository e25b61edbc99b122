"""The Leaderboard over HTTP: signed posts, their answers classified, rows read back."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from jobtester import __version__
from jobtester.errors import LeaderboardError
from jobtester.leaderboard import answers
from jobtester.leaderboard.answers import Answer, Fate
from jobtester.proxies import Proxies

_MAX_READ = 32 * 2**20
_MAX_ANSWER = 64 * 1024
_CONNECT_S = 10.0
_LONG = 512 * 1024
_CLOCKS_APART_S = 60.0  # answers take a while, and are dated in whole seconds
_KEEPALIVE_S = 10.0  # an idle connection that the server closes first would make the next post uncertain


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one stat's row looks like. `job` is the id inside its inputs, empty where there is none."""

    orchestrator: str
    pipeline: str
    model: str
    region: str
    timestamp: int
    round_trip_s: float
    job: str = ""

    def is_row(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row is this stat: the same instant, and the same time to the last bit or the job's own id."""
        if row.get("timestamp") != self.timestamp:
            return False
        own = bool(self.job) and self.job in str(row.get("input_parameters", ""))
        return own or row.get("round_trip_time") == self.round_trip_s


class Client:
    """Talks to one Leaderboard."""

    def __init__(
        self, url: str, secret: str, *, timeout_s: float = 30.0, clock: Callable[[], float] = time.time
    ) -> None:
        """Post to `url`/api/post_stats, signed with `secret`; each call ends within `timeout_s` seconds.

        `clock` gives our Unix seconds; how far it is ahead of the server's is told by what that answers.
        """
        self.url = url.rstrip("/")
        self._secret = secret.encode()
        self._timeout_s = timeout_s
        self._clock = clock
        self._ahead_s = 0.0
        self._session: aiohttp.ClientSession | None = None
        self._way = Proxies.of_environment().way(self.url)

    async def __aenter__(self) -> Client:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Make the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S, ceil_threshold=86_400),
            headers={"User-Agent": f"livepeer-job-tester/{__version__}"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def sign(self, body: bytes) -> str:
        """Give the bare lower-case hex HMAC-SHA256 over the exact bytes."""
        return hmac.new(self._secret, body, hashlib.sha256).hexdigest()

    async def post(self, body: bytes) -> Answer:
        """Send one stat and say what became of it; never raises for what the network does.

        Only a failure to connect proves that nothing arrived. Anything else that is not an answer leaves it unknown.
        """
        assert self._session is not None, "open() comes first"
        headers = {"Authorization": self.sign(body), "Content-Type": "application/json"}
        sent = body if len(body) < _LONG else io.BytesIO(body)  # what is long is handed over piece by piece
        try:
            async with self._session.post(
                f"{self.url}/api/post_stats", data=sent, headers=headers, allow_redirects=False, **self._way
            ) as response:
                text = (await _bounded(response, _MAX_ANSWER)).decode("utf-8", "replace").strip()
                wait, date = response.headers.get("Retry-After", ""), response.headers.get("Date", "")
                return answers.classify(response.status, text, wait, date)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Answer(Fate.LATER, f"no connection to {self.url}: {_reason(error)}")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Answer(Fate.UNKNOWN, f"no answer from {self.url}: {_reason(error)}")

    async def regions(self) -> dict[str, set[str]]:
        """Give the names of regions by the type of stats they keep (`ai`, `transcoding`). Raises LeaderboardError."""
        document = await self._get("/api/regions", {})
        listed = document.get("regions") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise LeaderboardError(
                f"{self.url}/api/regions: the answer is not a list of regions; is leaderboard.url right?"
            )
        found: dict[str, set[str]] = {}
        for one in listed:
            if isinstance(one, dict):
                found.setdefault(str(one.get("type")), set()).add(str(one.get("id")))
        return found

    async def count(self, wanted: Wanted, *, since: float, until: float) -> int:
        """Count the rows that are this very stat, read back past any cache. Raises LeaderboardError if unreadable.

        `since` and `until` are Unix seconds on our clock, between which they were stored. The server goes by its own,
        so it is asked again where its answer shows that it was asked for another time.
        """
        ahead_s = self._ahead_s
        found = await self._count(wanted, since - ahead_s, until - ahead_s)
        if found or abs(self._ahead_s - ahead_s) < _CLOCKS_APART_S:
            return found
        return await self._count(wanted, since - self._ahead_s, until - self._ahead_s)

    async def _count(self, wanted: Wanted, since: float, until: float) -> int:
        query = {"orchestrator": wanted.orchestrator, "since": f"{since:.3f}", "until": f"{until:.3f}"}
        if wanted.pipeline and wanted.model:
            query |= {"pipeline": wanted.pipeline, "model": wanted.model}
        document = await self._get("/api/raw_stats", query | {"_": secrets.token_hex(8)})
        if not isinstance(document, dict):
            raise LeaderboardError(f"{self.url}/api/raw_stats: the answer is not an object")
        rows = document.get(wanted.region) or []
        if not isinstance(rows, list):
            raise LeaderboardError(f"{self.url}/api/raw_stats: {wanted.region} is not a list")
        return sum(wanted.is_row(row) for row in rows if isinstance(row, dict))

    async def _get(self, path: str, query: dict[str, str]) -> Any:
        assert self._session is not None, "open() comes first"
        url = f"{self.url}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            async with self._session.get(url, **self._way) as response:
                body = await _bounded(response, _MAX_READ)
        except ValueError as error:
            raise LeaderboardError(f"{self.url}{path}: {error}") from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise LeaderboardError(f"{self.url}{path}: {_reason(error)}") from error
        date = answers.instant_of(response.headers.get("Date", ""))
        if date is not None:
            self._ahead_s = self._clock() - date
        if response.status != 200:
            text = body[:200].decode("utf-8", "replace").strip()
            raise LeaderboardError(f"{self.url}{path}: answered {response.status}: {text}")
        try:
            return await asyncio.to_thread(orjson.loads, body)
        except orjson.JSONDecodeError as error:
            raise LeaderboardError(f"{self.url}{path}: the answer is not JSON; is leaderboard.url right?") from error


async def _bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read a body piece by piece. Raises ValueError once it is larger than `most` bytes."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            raise ValueError(f"the answer is larger than {most} bytes")
    return bytes(body)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
