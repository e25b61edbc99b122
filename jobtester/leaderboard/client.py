"""The Leaderboard over HTTP: signed posts, their answers classified, rows read back."""

from __future__ import annotations

import asyncio
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
from jobtester.http import Proxies, explain_connection_error, read_bounded, sign_body
from jobtester.leaderboard.answers import PostAnswer, PostResult, classify_answer, parse_http_date

_FAR_FUTURE = 4_102_444_800  # the year 2100: no clock of a database runs that far ahead
_CONNECTIONS = 512
_MAX_READ = 32 * 2**20
_MAX_ANSWER = 64 * 1024
_CONNECT_S = 10.0
_LONG = 512 * 1024
_KEEPALIVE_S = 10.0  # an idle connection that the server closes first would make the next post uncertain


@dataclass(frozen=True, slots=True)
class ExpectedRow:
    """What one stat's row looks like. `job` is the id inside its inputs, empty where there is none."""

    orchestrator: str
    pipeline: str
    model: str
    region: str
    timestamp: int
    round_trip_s: float
    job: str = ""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row is this stat: the same instant, and the same time to the last bit or the job's own id."""
        if row.get("timestamp") != self.timestamp or row.get("region", self.region) != self.region:
            return False
        own = bool(self.job) and self.job in str(row.get("input_parameters", ""))
        return own or row.get("round_trip_time") == self.round_trip_s


class LeaderboardClient:
    """Talks to one Leaderboard."""

    def __init__(
        self, url: str, secret: str, *, timeout_s: float = 30.0, clock: Callable[[], float] = time.time
    ) -> None:
        """Post to `url`/api/post_stats, signed with `secret`; each call ends within `timeout_s` seconds.

        `clock` gives our Unix seconds; how far it is ahead of the server's is told by what that answers.
        """
        self.url = url.rstrip("/")
        self._secret = secret
        self._timeout_s = timeout_s
        self._clock = clock
        self._ahead_s = 0.0
        self._session: aiohttp.ClientSession | None = None
        self._way = Proxies.from_environment().request_arguments(self.url)

    async def __aenter__(self) -> LeaderboardClient:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Make the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S, ceil_threshold=86_400),
            headers={"User-Agent": f"livepeer-job-tester/{__version__}"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, body: bytes) -> PostAnswer:
        """Send one stat and say what became of it; never raises for what the network does.

        Only a failure to connect proves that nothing arrived. Anything else that is not an answer leaves it unknown.
        """
        assert self._session is not None, "open() comes first"
        headers = {"Authorization": sign_body(self._secret, body), "Content-Type": "application/json"}
        sent = body if len(body) < _LONG else io.BytesIO(body)  # what is long is handed over piece by piece
        try:
            async with self._session.post(
                f"{self.url}/api/post_stats", data=sent, headers=headers, allow_redirects=False, **self._way
            ) as response:
                text = (await read_bounded(response.content, _MAX_ANSWER)).decode("utf-8", "replace").strip()
                self._compare_clocks(response)
                wait, date = response.headers.get("Retry-After", ""), response.headers.get("Date", "")
                return classify_answer(response.status, text, wait, date)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return PostAnswer(PostResult.LATER, f"no connection to {self.url}: {self._cause(error)}")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            return PostAnswer(PostResult.UNKNOWN, f"no answer from {self.url}: {self._cause(error)}")

    async def get_regions(self) -> dict[str, set[str]]:
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

    def server_time(self, ours: float) -> float:
        """Return what the server's clock shows when ours shows `ours`, as far as its answers have told; Unix
        seconds."""
        return ours - self._ahead_s

    async def get_rows(
        self,
        orchestrator: str,
        *,
        pipeline: str = "",
        model: str = "",
        since: float,
        fresh: bool = False,
        job_type: str = "ai",
    ) -> list[Mapping[str, Any]]:
        """Return the stored stats of an orchestrator, of all regions, past any cache. Raises LeaderboardError.

        Without pipeline and model: all of a job type. `since` is on the server's clock; `until` lies far in the future,
        because the database's clock may run ahead of the server's. `fresh` takes a connection of its own.
        """
        query = {"orchestrator": orchestrator, "since": f"{since:.3f}", "until": str(_FAR_FUTURE)}
        query |= {"pipeline": pipeline, "model": model} if pipeline and model else {"job_type": job_type}
        document = await self._get("/api/raw_stats", query | {"_": secrets.token_hex(8)}, fresh=fresh)
        if not isinstance(document, dict) or not all(isinstance(rows, list | None) for rows in document.values()):
            raise LeaderboardError(f"{self.url}/api/raw_stats: the answer is not an object of lists")
        listed = [(region, row) for region, rows in document.items() for row in rows or ()]
        return [row | {"region": region} for region, row in listed if isinstance(row, dict)]

    def _cause(self, error: Exception) -> str:
        return explain_connection_error(error, self.url, self._way.get("proxy"))

    async def _get(self, path: str, query: dict[str, str], *, fresh: bool = False) -> Any:
        assert self._session is not None, "open() comes first"
        url = f"{self.url}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            headers = {"Connection": "close"} if fresh else {}
            async with self._session.get(url, headers=headers, **self._way) as response:
                body = await read_bounded(response.content, _MAX_READ)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise LeaderboardError(f"{self.url}{path}: {self._cause(error)}") from error
        except ValueError as error:
            raise LeaderboardError(f"{self.url}{path}: {error}") from error
        self._compare_clocks(response)
        if response.status != 200:
            text = body[:200].decode("utf-8", "replace").strip()
            raise LeaderboardError(f"{self.url}{path}: answered {response.status}: {text}")
        try:
            return await asyncio.to_thread(orjson.loads, body)
        except orjson.JSONDecodeError as error:
            raise LeaderboardError(f"{self.url}{path}: the answer is not JSON; is leaderboard.url right?") from error

    def _compare_clocks(self, response: aiohttp.ClientResponse) -> None:
        date = parse_http_date(response.headers.get("Date", ""))
        if date is not None:
            self._ahead_s = self._clock() - date
