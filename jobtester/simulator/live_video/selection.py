"""How a gateway finds the orchestrator of a stream: one pool per model, without those that failed once."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from jobtester.simulator.faults import LIVE_PIPELINE
from jobtester.simulator.live_spec import LiveGatewaySpec
from jobtester.simulator.live_video.live_log import LoggedLiveJob
from jobtester.simulator.orchestrator import Orchestrator
from jobtester.simulator.scenario import GatewaySpec

_START_TIMEOUT = aiohttp.ClientTimeout(total=5.0, ceil_threshold=1e9)
_SLOW_REFRESHES = 5  # a slow one is left out for about half an hour


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What a client asked for when it started a stream."""

    stream: str
    stream_id: str
    request_id: str
    pin: str
    model: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StartedSession:
    """A stream that an orchestrator has accepted. `called_at` is when the gateway called it."""

    node: Orchestrator
    called_at: float
    publish_url: str
    subscribe_url: str
    control_url: str
    events_url: str
    manifest_id: str


@dataclass(slots=True)
class _Pool:
    refresh: int
    nodes: list[Orchestrator]


class LiveSelection:
    """The pools of one gateway, by model. `collect_nodes` returns the orchestrators that the gateway knows."""

    def __init__(
        self, spec: GatewaySpec, rng: random.Random, collect_nodes: Callable[[], Awaitable[Sequence[Orchestrator]]]
    ) -> None:
        self._spec, self._random, self._collect_nodes = spec, rng, collect_nodes
        self._started = time.monotonic()
        self._pools: dict[str, _Pool] = {}
        self._slow: dict[Orchestrator, int] = {}

    @property
    def _live(self) -> LiveGatewaySpec:
        return self._spec.live

    async def start(
        self, session: aiohttp.ClientSession, request: StreamRequest, job: LoggedLiveJob
    ) -> StartedSession | None:
        """Start the stream on one of the orchestrators that match its pin; return None if there is none.

        Every session that is looked at is one try, also if it does not match: behind many others a pinned one may
        never be reached.
        """
        deadline = time.monotonic() + self._spec.retry_window
        pool = await self._open_pool(request.model)
        shuffled = self._random.sample(pool.nodes, len(pool.nodes))
        ordered = sorted(shuffled, key=lambda node: not node.is_warm(LIVE_PIPELINE, request.model))
        for node in ordered[: self._spec.max_tries]:
            if time.monotonic() > deadline:
                return None
            job.tries += 1
            if request.pin not in node.spec.service_uri:
                continue
            started = await self._call(session, node, request, job)
            if started is not None:
                return started
            self._remove(node, request.model)
        return None

    def suspend_slow(self, node: Orchestrator, model: str) -> None:
        """Leave out an orchestrator that takes its segments too slowly."""
        self._remove(node, model)
        self._slow[node] = self._refresh_number() + _SLOW_REFRESHES

    def count_available(self) -> int:
        """Return how many orchestrators are in all pools."""
        return len({node for pool in self._pools.values() for node in pool.nodes})

    def _remove(self, node: Orchestrator, model: str) -> None:
        pool = self._pools.get(model)
        if pool is not None and node in pool.nodes:
            pool.nodes.remove(node)

    def _refresh_number(self) -> int:
        return int((time.monotonic() - self._started) / self._live.pool_refresh_s)

    async def _open_pool(self, model: str) -> _Pool:
        """Return the model's pool, filled again if it is empty or the gateway's clock has passed a refresh."""
        refresh = self._refresh_number()
        pool = self._pools.get(model)
        if pool is None or pool.refresh != refresh or not pool.nodes:
            nodes = [
                node
                for node in await self._collect_nodes()
                if node.is_selectable(LIVE_PIPELINE, model, self._spec.max_price) and self._slow.get(node, 0) <= refresh
            ]
            pool = self._pools[model] = _Pool(refresh, nodes)
        return pool

    @staticmethod
    async def _call(
        session: aiohttp.ClientSession, node: Orchestrator, request: StreamRequest, job: LoggedLiveJob
    ) -> StartedSession | None:
        called_at = time.monotonic()
        body = {
            "stream_id": request.stream_id,
            "gateway_request_id": request.request_id,
            "model_id": request.model,
            "params": request.params,
        }
        url = f"{node.spec.service_uri.rstrip('/')}/{LIVE_PIPELINE}"
        try:
            async with session.post(url, json=body, ssl=False, timeout=_START_TIMEOUT) as response:
                if response.status != 200:
                    job.log_errors.append(f"{response.status} {(await response.text()).strip()}")
                    return None
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            job.log_errors.append(f"{type(error).__name__}: {error}")
            return None
        return StartedSession(node, called_at, **answer)
