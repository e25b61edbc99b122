"""A tester that receives other testers' results, with its delivery running and the simulated Leaderboard behind it."""

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

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.leaderboard.leaderboard import Leaderboard
from jobtester.simulator.scenario import GatewaySpec
from tests.harness.simulated import SimulatedTester, simulated_tester

SECRET = "testsecret"
ROUTES = ("/webhooks/test-results", "/api/post_stats")
SCENARIO = generate(seed=1, orchestrators=1, pipelines=("llm",), gateways=(GatewaySpec("g", mode="query"),))
AI_STAT: dict[str, Any] = {
    "region": "FRA", "orchestrator": "0xa11ce00000000000000000000000000000000001", "success_rate": 1,
    "round_trip_time": 2.345678901234567, "errors": [], "timestamp": 1700000000, "model": "ByteDance/SDXL-Lightning",
    "model_is_warm": True, "pipeline": "Text to image", "input_parameters": '{"fps":8}', "response_payload": "{}",
}  # fmt: skip
TRANSCODING_STAT: dict[str, Any] = {
    "region": "NYC", "orchestrator": "0xb0b0000000000000000000000000000000000002", "success_rate": 0.875,
    "round_trip_time": 3.5, "errors": [{"error_code": "timeout", "count": 1}], "timestamp": 1700000001,
    "seg_duration": 2.0, "segments_sent": 8, "segments_received": 7, "upload_time": 0.1, "download_time": 0.2,
    "transcode_time": 0.4,
}  # fmt: skip


def sign(body: bytes, secret: str = SECRET) -> str:
    """Return a signature as testers send it: bare lower-case hex HMAC-SHA256 of the raw body."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@dataclass(slots=True)
class ReceivingTester:
    """A tester that receives results, with its delivery running."""

    tester: SimulatedTester
    session: aiohttp.ClientSession

    @property
    def leaderboard(self) -> Leaderboard:
        """Return the simulated Leaderboard."""
        return self.tester.network.leaderboard

    async def post(
        self, body: bytes | dict[str, Any] | list[Any], *, route: str = ROUTES[0], auth: str | None = ""
    ) -> tuple[int, str, bytes]:
        """Post a body, correctly signed unless `auth` says otherwise; return status, content type and body."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {} if auth is None else {"Authorization": auth or sign(raw)}
        return await self.post_to(f"http://127.0.0.1:{self.tester.daemon.port}{route}", raw, headers)

    async def post_to(self, url: str, raw: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        """Post to an address; return status, content type and body."""
        async with self.session.post(url, data=io.BytesIO(raw), headers=headers) as answer:
            return answer.status, answer.headers["Content-Type"], await answer.read()

    async def read_forwarded(self) -> list[bytes]:
        """Return what has reached the Leaderboard once nothing is in flight."""
        assert self.tester.daemon.delivery is not None
        await self.tester.daemon.delivery.drain()
        return [row.body for row in self.leaderboard.rows]

    async def read_received(self) -> list[dict[str, Any]]:
        """Return what is stored of other testers, newest first."""
        url = f"http://127.0.0.1:{self.tester.daemon.port}/api/received?limit=500"
        async with self.session.get(url) as answer:
            items: list[dict[str, Any]] = (await answer.json())["items"]
            return items

    def received_count(self, outcome: str) -> float:
        """Return jobtester_results_received_total of an outcome."""
        return float(self.tester.daemon.coordinator.metrics.results_received.labels(outcome)._value.get())


@asynccontextmanager
async def receiving_tester(folder: Path, **sections: Any) -> AsyncIterator[ReceivingTester]:
    """Start a tester with its delivery running."""
    sections = {"server": {"results_secret": SECRET}, **sections}
    async with simulated_tester(SCENARIO, folder, **sections) as tester, aiohttp.ClientSession() as session:
        stop = asyncio.Event()
        assert tester.daemon.delivery is not None
        running = asyncio.ensure_future(tester.daemon.delivery.run(stop))
        try:
            yield ReceivingTester(tester, session)
        finally:
            stop.set()
            await running
