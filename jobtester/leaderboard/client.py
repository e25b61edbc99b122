"""Speak the Leaderboard's HTTP API: signed posts, what their answers mean, and rows read back."""

from __future__ import annotations

import asyncio
import email.utils
import io
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from jobtester import __version__
from jobtester.errors import LeaderboardError
from jobtester.http import Proxies, explain_connection_error, read_bounded, sign_body

_FAR_FUTURE = 4_102_444_800  # the year 2100: no clock of a database runs that far ahead
_MAX_CONNECTIONS = 512
_MAX_ROWS_BYTES = 32 * 2**20
_MAX_ANSWER_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 10.0
_MIN_STREAMED_BYTES = 512 * 1024
_KEEPALIVE_S = 10.0  # an idle connection that the server closes first would make the next post uncertain
# PostgreSQL's codes for a value that it will never store: too long, U+0000, too long for the index.
_PERMANENT_SQL_ERRORS = ("22001", "22P05", "54000")
_HINTS = {
    403: "; check leaderboard.secret",
    404: "; check leaderboard.url",
    413: "; the stat is too large",
}


class PostResult(StrEnum):
    """What an answer to a post means for the stat."""

    STORED = "stored"
    REFUSED = "refused"
    REGION_REJECTED = "region rejected"
    NOT_STORED = "not stored"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class PostAnswer:
    """The result of one post. `retry_after_s`: the seconds that the server asks to wait, None if it does not ask."""

    result: PostResult
    problem: str = ""
    retry_after_s: float | None = None
    status: int | None = None

    @classmethod
    def from_response(cls, status: int, text: str, retry_after: str = "", date: str = "") -> PostAnswer:
        """Return what an HTTP response means. The status decides: bodies of errors need not even be JSON."""
        retry_after_s, problem = parse_retry_after(retry_after, date), f"{status}: {text[:200]}"
        if status == 200:
            if text == "ok":
                return cls(PostResult.STORED, status=status)
            problem = f"200, but not `ok`: {text[:200]}; is leaderboard.url right?"
            return cls(PostResult.UNCERTAIN, problem, status=status)
        if status == 400 and "invalid region" in text:
            return cls(PostResult.REGION_REJECTED, problem, retry_after_s, status)
        if status == 500 and any(code in text for code in _PERMANENT_SQL_ERRORS):
            return cls(PostResult.REFUSED, problem, status=status)
        # Only these two come before the server touches its database, so they prove that nothing was stored.
        if status == 429 or (status == 503 and "postgres is not configured" in text):
            return cls(PostResult.NOT_STORED, problem, retry_after_s, status)
        # Everything else of the server or of a proxy in front of it can also come after the commit: a time limit can
        # strike between the two, and a proxy can give up on a server that goes on.
        if status == 408 or status >= 500 or status < 300:
            return cls(PostResult.UNCERTAIN, problem, retry_after_s, status)
        # A redirect is not followed: a POST would arrive elsewhere as a GET without its body.
        hint = "; leaderboard.url redirects, give the final address" if status < 400 else _HINTS.get(status, "")
        return cls(PostResult.REFUSED, problem + hint, status=status)

    @property
    def affects_all_stats(self) -> bool:
        """Return True if every stat would be answered so: the secret or the address is wrong."""
        return self.result is PostResult.REFUSED and self.status in (301, 302, 307, 308, 401, 403, 404, 405)


def parse_retry_after(retry_after: str, date: str = "") -> float | None:
    """Return a Retry-After header, a number of seconds or a date, as seconds from now; None if it is neither.

    `date` is the response's own Date header, so that a date is measured by one clock. Without it our clock counts.
    """
    text = retry_after.strip()
    if not text:
        return None
    if text.isdecimal():
        return float(text)
    until, now = parse_http_date(text), parse_http_date(date)
    return max(0.0, until - (time.time() if now is None else now)) if until is not None else None


def parse_http_date(date: str) -> float | None:
    """Return an HTTP date as Unix seconds; None if it is not a date."""
    try:
        fields = email.utils.parsedate_tz(date) if date else None
        return float(email.utils.mktime_tz(fields)) if fields else None
    except (ValueError, OverflowError):  # a date that no calendar has
        return None


class LeaderboardClient:
    """Send posts to one Leaderboard and read its regions and rows."""

    def __init__(
        self, url: str, secret: str, *, timeout_s: float = 30.0, clock: Callable[[], float] = time.time
    ) -> None:
        """Post to `url`/api/post_stats, signed with `secret`; each call ends within `timeout_s` seconds.

        `clock` returns our Unix seconds. The server's Date headers show how far it is ahead of the server's clock.
        """
        self.url = url.rstrip("/")
        self._secret = secret
        self._timeout_s = timeout_s
        self._clock = clock
        self._ahead_s = 0.0
        self._session: aiohttp.ClientSession | None = None
        self._proxy = Proxies.from_environment().request_arguments(self.url)

    async def __aenter__(self) -> LeaderboardClient:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Create the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(
                total=self._timeout_s, sock_connect=_CONNECT_TIMEOUT_S, ceil_threshold=86_400
            ),
            headers={"User-Agent": f"livepeer-job-tester/{__version__}"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, body: bytes) -> PostAnswer:
        """Send one stat and return the result; network errors are results, not exceptions.

        Only a failure to connect proves that nothing arrived. Any other error leaves it uncertain: the bytes may have
        left before the connection broke, and the server goes on storing although nobody waits for it.
        """
        assert self._session is not None, "open() comes first"
        headers = {"Authorization": sign_body(self._secret, body), "Content-Type": "application/json"}
        data = body if len(body) < _MIN_STREAMED_BYTES else io.BytesIO(body)  # or a long body blocks the event loop
        try:
            async with self._session.post(
                f"{self.url}/api/post_stats", data=data, headers=headers, allow_redirects=False, **self._proxy
            ) as response:
                text = (await read_bounded(response.content, _MAX_ANSWER_BYTES)).decode("utf-8", "replace").strip()
                self._compare_clocks(response)
                retry_after, date = response.headers.get("Retry-After", ""), response.headers.get("Date", "")
                return PostAnswer.from_response(response.status, text, retry_after, date)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return PostAnswer(PostResult.NOT_STORED, f"no connection to {self.url}: {self._explain(error)}")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            return PostAnswer(PostResult.UNCERTAIN, f"no answer from {self.url}: {self._explain(error)}")

    async def get_regions(self, *, timeout_s: float | None = None) -> dict[str, set[str]]:
        """Return the names of regions by the type of stats they keep (`ai`, `transcoding`). Raises LeaderboardError.

        `timeout_s`: how long to wait for the answer, in seconds, if that is less than the client's own limit.
        """
        try:
            async with asyncio.timeout(timeout_s):
                document = await self._get("/api/regions", {})
        except TimeoutError as error:
            raise LeaderboardError(f"{self.url}/api/regions: no answer within {timeout_s:g} s") from error
        regions = document.get("regions") if isinstance(document, dict) else None
        if not isinstance(regions, list):
            raise LeaderboardError(
                f"{self.url}/api/regions: the answer is not a list of regions; is leaderboard.url right?"
            )
        names: dict[str, set[str]] = {}
        for region in regions:
            if isinstance(region, dict):
                names.setdefault(str(region.get("type")), set()).add(str(region.get("id")))
        return names

    def server_time(self, our_time: float) -> float:
        """Return what the server's clock shows at `our_time`, as far as its answers have shown; Unix seconds."""
        return our_time - self._ahead_s

    async def get_rows(
        self,
        orchestrator: str,
        *,
        pipeline: str = "",
        model: str = "",
        since: float,
        new_connection: bool = False,
        job_type: str = "ai",
    ) -> list[Mapping[str, Any]]:
        """Return the stored stats of an orchestrator, of all regions, past any cache. Raises LeaderboardError.

        Without pipeline and model: all of a job type. `since` is on the server's clock; `until` lies far in the future,
        because the database's clock may run ahead of the server's.
        """
        query = {"orchestrator": orchestrator, "since": f"{since:.3f}", "until": str(_FAR_FUTURE)}
        query |= {"pipeline": pipeline, "model": model} if pipeline and model else {"job_type": job_type}
        # A random parameter: a cache in front of the server would repeat the answer from before the post.
        query["_"] = secrets.token_hex(8)
        document = await self._get("/api/raw_stats", query, new_connection=new_connection)
        if not isinstance(document, dict) or not all(isinstance(rows, list | None) for rows in document.values()):
            raise LeaderboardError(f"{self.url}/api/raw_stats: the answer is not an object of lists")
        rows = [(region, row) for region, rows in document.items() for row in rows or ()]
        return [row | {"region": region} for region, row in rows if isinstance(row, dict)]

    def _explain(self, error: Exception) -> str:
        return explain_connection_error(error, self.url, self._proxy.get("proxy"))

    async def _get(self, path: str, query: dict[str, str], *, new_connection: bool = False) -> Any:
        assert self._session is not None, "open() comes first"
        url = f"{self.url}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            headers = {"Connection": "close"} if new_connection else {}
            async with self._session.get(url, headers=headers, **self._proxy) as response:
                body = await read_bounded(response.content, _MAX_ROWS_BYTES)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise LeaderboardError(f"{self.url}{path}: {self._explain(error)}") from error
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
