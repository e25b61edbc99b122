"""The Leaderboard over HTTP: signed posts, their answers classified, rows read back."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from jobtester import __version__
from jobtester.errors import LeaderboardError

_MAX_READ = 32 * 2**20
_MAX_ANSWER = 64 * 1024
_FINAL_500 = ("22001", "22P05", "54000")


class Fate(StrEnum):
    """What an answer to a post means for the stat."""

    STORED = "stored"
    REFUSED = "refused"
    REGION = "region"
    LATER = "later"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """The fate of one post. `retry_after_s` is what the server asks for, None if it does not; `secret` marks a 403."""

    fate: Fate
    problem: str = ""
    retry_after_s: float | None = None
    status: int | None = None


class Client:
    """Talks to one Leaderboard."""

    def __init__(self, url: str, secret: str, *, timeout_s: float = 30.0) -> None:
        """Post to `url`/api/post_stats, signed with `secret`; each call ends within `timeout_s` seconds."""
        self.url = url.rstrip("/")
        self._secret = secret.encode()
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

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
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=10, ceil_threshold=86_400),
            headers={"User-Agent": f"livepeer-job-tester/{__version__}"},
            trust_env=True,
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
        try:
            async with self._session.post(
                f"{self.url}/api/post_stats", data=body, headers=headers, allow_redirects=False
            ) as response:
                text = (await response.content.read(_MAX_ANSWER)).decode("utf-8", "replace").strip()
                return _classified(response.status, text, response.headers.get("Retry-After", ""))
        except aiohttp.ClientConnectorError as error:
            return Answer(Fate.LATER, f"no connection to {self.url}: {error}")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Answer(Fate.UNKNOWN, f"no answer from {self.url}: {_reason(error)}")

    async def ai_regions(self) -> set[str]:
        """Give the names of regions that keep AI stats. Raises LeaderboardError."""
        document = await self._get("/api/regions", {})
        listed = document.get("regions") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise LeaderboardError(
                f"{self.url}/api/regions: the answer is not a list of regions; is leaderboard.url right?"
            )
        return {str(one.get("id")) for one in listed if isinstance(one, dict) and one.get("type") == "ai"}

    async def count(
        self, *, orchestrator: str, pipeline: str, model: str, region: str, timestamp: int, round_trip_s: float,
        job: str, since: float, until: float,
    ) -> int:  # fmt: skip
        """Count the rows that are this very stat, read back past any cache. Raises LeaderboardError if unreadable."""
        query = {
            "orchestrator": orchestrator,
            "pipeline": pipeline,
            "model": model,
            "since": f"{since:.3f}",
            "until": f"{until:.3f}",
            "_": secrets.token_hex(8),
        }
        document = await self._get("/api/raw_stats", query)
        if not isinstance(document, dict):
            raise LeaderboardError(f"{self.url}/api/raw_stats: the answer is not an object")
        rows = document.get(region) or []
        return sum(_is(row, timestamp, round_trip_s, job) for row in rows if isinstance(row, dict))

    async def _get(self, path: str, query: dict[str, str]) -> Any:
        assert self._session is not None, "open() comes first"
        url = f"{self.url}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            async with self._session.get(url) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > _MAX_READ:
                        raise LeaderboardError(f"{self.url}{path}: the answer is larger than {_MAX_READ} bytes")
                if response.status != 200:
                    text = body[:200].decode("utf-8", "replace").strip()
                    raise LeaderboardError(f"{self.url}{path}: answered {response.status}: {text}")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise LeaderboardError(f"{self.url}{path}: {_reason(error)}") from error
        try:
            return await asyncio.to_thread(orjson.loads, body)
        except orjson.JSONDecodeError as error:
            raise LeaderboardError(f"{self.url}{path}: the answer is not JSON; is leaderboard.url right?") from error


def _classified(status: int, text: str, retry_after: str) -> Answer:
    wait = float(retry_after) if retry_after.isdecimal() else None
    said = f"{status}: {text[:200]}"
    if status == 200:
        if text == "ok":
            return Answer(Fate.STORED, status=status)
        return Answer(Fate.UNKNOWN, f"200, but not `ok`: {text[:200]}; is leaderboard.url right?", status=status)
    if status == 400 and "invalid region" in text:
        return Answer(Fate.REGION, said, wait, status)
    if status == 500 and any(code in text for code in _FINAL_500):
        return Answer(Fate.REFUSED, said, status=status)
    if status in (429, 503) and "<" not in text[:1]:
        return Answer(Fate.LATER, said, wait, status)
    if status >= 500 or status == 408:
        return Answer(Fate.UNKNOWN, said, wait, status)
    if 300 <= status < 400:
        return Answer(Fate.REFUSED, f"{said}; leaderboard.url redirects, give the final address", status=status)
    hint = {403: "; check leaderboard.secret", 404: "; check leaderboard.url", 413: "; the stat is too large"}
    return Answer(Fate.REFUSED, said + hint.get(status, ""), status=status)


def _is(row: dict[str, Any], timestamp: int, round_trip_s: float, job: str) -> bool:
    """Tell whether a row is this stat: equal time to the last bit, or our own id in its inputs."""
    if row.get("timestamp") != timestamp:
        return False
    return row.get("round_trip_time") == round_trip_s or (bool(job) and job in str(row.get("input_parameters", "")))


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
