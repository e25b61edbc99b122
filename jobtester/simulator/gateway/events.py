"""A gateway's events, sent to an HTTP sink in batches: each at most once, lost where the sink does not answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp

_BATCH_INTERVAL_S = 0.25
_TIMEOUT = aiohttp.ClientTimeout(total=3, ceil_threshold=1e9)


class EventSink:
    """Queues events and sends them to a URL, if there is one at the moment."""

    def __init__(self, gateway: str, generation: int, url: Callable[[], str | None], token: Callable[[], str]) -> None:
        """Use envelopes of generation 1 or 2. URL and token may change while the sink runs."""
        self._gateway, self._generation, self._url, self._token = gateway, generation, url, token
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=1000)

    def emit(self, kind: str, payload: dict[str, Any]) -> None:
        """Queue an event; drop it if the queue is full or there is no URL."""
        if self._url() is None or self._queue.full():
            return
        envelope: dict[str, Any] = {"id": str(uuid.uuid4()), "type": kind, "gateway": self._gateway}
        if self._generation == 1:
            envelope |= {"timestamp": datetime.now(UTC).isoformat(), "payload": payload}
        else:
            envelope |= {"timestamp": str(int(time.time() * 1000)), "data": payload}
        self._queue.put_nowait(envelope)

    async def run(self) -> None:
        """Send batches until canceled."""
        async with aiohttp.ClientSession() as session:
            while True:
                batch = [await self._queue.get()]
                await asyncio.sleep(_BATCH_INTERVAL_S)
                while not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                await self._send(session, batch)

    async def _send(self, session: aiohttp.ClientSession, batch: list[dict[str, Any]]) -> None:
        url, token = self._url(), self._token()
        if url is None:
            return
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with session.post(url, json=batch, headers=headers, timeout=_TIMEOUT) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return


def batch_received(request_id: str, pipeline: str, model: str) -> dict[str, Any]:
    """Return the payload for a batch job that arrived."""
    return {
        "type": "ai_batch_request_received",
        "request_id": request_id,
        "pipeline": pipeline,
        "model_id": model,
        "timestamp": int(time.time() * 1000),
    }


def batch_completed(
    request_id: str, pipeline: str, model: str, *, tries: int, took_s: float, orch_url: str, error: str
) -> dict[str, Any]:
    """Return the payload for a batch job's end; an empty error means success."""
    return {
        "type": "ai_batch_request_completed",
        "request_id": request_id,
        "pipeline": pipeline,
        "model_id": model,
        "success": not error,
        "tries": tries,
        "duration_ms": int(took_s * 1000),
        "orch_url": orch_url,
        "latency_score": round(took_s, 6),
        "price_per_unit": 1000,
        "error_type": _error_type(error),
        "error": error,
    }


def byoc_completed(
    request_id: str, capability: str, *, address: str, url: str, took_s: float, status: int, error: str
) -> dict[str, Any]:
    """Return the payload for the end of a job for an external capability."""
    return {
        "type": "job_gateway_completed",
        "request_id": request_id,
        "attempt_index": 0,
        "capability": capability,
        "success": not error,
        "error": error,
        "duration_ms": int(took_s * 1000),
        "http_status": status,
        "orchestrator_info": {"address": address, "url": url},
    }


def _error_type(error: str) -> str:
    if not error:
        return ""
    return "no_orchestrators" if error.startswith("no orchestrators") else "orchestrator_error"
