"""A tester that takes other testers' results, for tests: delivery at work, the Leaderboard double behind it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from jobtester.simulator.leaderboard import Leaderboard
from jobtester.simulator.scenario import GatewaySpec, generate
from tests.running import Stage, staged

SECRET = "testsecret"
ROUTES = ("/webhooks/test-results", "/api/post_stats")
SCENARIO = generate(seed=1, orchestrators=1, pipelines=("llm",), gateways=(GatewaySpec("g", mode="query"),))
AI: dict[str, Any] = {
    "region": "FRA", "orchestrator": "0xa11ce00000000000000000000000000000000001", "success_rate": 1,
    "round_trip_time": 2.345678901234567, "errors": [], "timestamp": 1700000000, "model": "ByteDance/SDXL-Lightning",
    "model_is_warm": True, "pipeline": "Text to image", "input_parameters": '{"fps":8}', "response_payload": "{}",
}  # fmt: skip
TRANSCODING: dict[str, Any] = {
    "region": "NYC", "orchestrator": "0xb0b0000000000000000000000000000000000002", "success_rate": 0.875,
    "round_trip_time": 3.5, "errors": [{"error_code": "timeout", "count": 1}], "timestamp": 1700000001,
    "seg_duration": 2.0, "segments_sent": 8, "segments_received": 7, "upload_time": 0.1, "download_time": 0.2,
    "transcode_time": 0.4,
}  # fmt: skip


def signed(body: bytes, secret: str = SECRET) -> str:
    """Sign as testers do: bare lower-case hex HMAC-SHA256 of the raw body."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@dataclass(slots=True)
class Receiving:
    """A tester that takes results, with delivery at work, and the Leaderboard behind it."""

    stage: Stage
    session: aiohttp.ClientSession

    @property
    def board(self) -> Leaderboard:
        """Give the Leaderboard."""
        return self.stage.network.leaderboard

    async def post(
        self, body: bytes | dict[str, Any] | list[Any], *, route: str = ROUTES[0], auth: str | None = ""
    ) -> tuple[int, str, bytes]:
        """Post a body, rightly signed unless `auth` says otherwise; give status, content type and body."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {} if auth is None else {"Authorization": auth or signed(raw)}
        return await self.at(f"http://127.0.0.1:{self.stage.daemon.port}{route}", raw, headers)

    async def at(self, url: str, raw: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        """Post to an address."""
        async with self.session.post(url, data=io.BytesIO(raw), headers=headers) as answer:
            return answer.status, answer.headers["Content-Type"], await answer.read()

    async def forwarded(self) -> list[bytes]:
        """Give what has reached the Leaderboard once nothing is on its way any more."""
        assert self.stage.daemon.delivery is not None
        await self.stage.daemon.delivery.idle()
        return [row.body for row in self.board.rows]

    async def kept(self) -> list[dict[str, Any]]:
        """Give what is kept of other testers, newest first."""
        url = f"http://127.0.0.1:{self.stage.daemon.port}/api/received?limit=500"
        async with self.session.get(url) as answer:
            items: list[dict[str, Any]] = (await answer.json())["items"]
            return items

    def counted(self, outcome: str) -> float:
        """Read jobtester_results_received_total of an outcome."""
        return float(self.stage.daemon.metrics.received.labels(outcome)._value.get())


@asynccontextmanager
async def receiving(folder: Path, **sections: Any) -> AsyncIterator[Receiving]:
    """Start a tester with delivery running beside it."""
    sections = {"server": {"results_secret": SECRET}, **sections}
    async with staged(SCENARIO, folder, **sections) as stage, aiohttp.ClientSession() as session:
        stop = asyncio.Event()
        assert stage.daemon.delivery is not None
        running = asyncio.ensure_future(stage.daemon.delivery.run(stop))
        try:
            yield Receiving(stage, session)
        finally:
            stop.set()
            await running
