"""How a gateway picks the orchestrator of an attempt, in each of its modes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobtester.simulator import orchestrator, pool, scenario

Node = orchestrator.Orchestrator


class Selection:
    """Build a selector per use, from the webhook's answer of that moment: the tester gateway."""

    def __init__(self, listed: pool.Pool, rng: random.Random) -> None:
        """Share the gateway's pool and its random source."""
        self.pool, self.rng = listed, rng
        self._building = asyncio.Lock()

    async def select(self, pipeline: str, model: str, wanted: str) -> Node | None:
        """Pick somebody who serves the model; `wanted` is the query's orchestrator, and not looked at here."""
        del wanted
        await self._build()
        await self.pool.refresh()  # its size, once more
        await self.pool.refresh()  # the size again, as the session is stale already
        return choose(await self.pool.infos(), pipeline, model, self.rng)

    async def close(self, pipeline: str, model: str, node: Node, *, failed: bool, took_s: float = 0.0) -> None:
        """Complete or remove the session; either way one more throw-away selector is built."""
        del pipeline, model, node, failed, took_s
        await self._build()

    async def _build(self) -> None:
        async with self._building:
            await self.pool.refresh()  # its size
            await self.pool.infos()


class QuerySelection(Selection):
    """Pick exactly the orchestrator that the request's query names; without one, anybody."""

    async def select(self, pipeline: str, model: str, wanted: str) -> Node | None:
        """Ask the wanted orchestrator for its info, and take it if it serves the model."""
        uris = [wanted] if wanted else await self.pool.refresh()
        return choose(await self.pool.ask(uris), pipeline, model, self.rng)

    async def close(self, pipeline: str, model: str, node: Node, *, failed: bool, took_s: float = 0.0) -> None:
        """Forget the session."""


@dataclass(slots=True)
class _Sessions:
    refreshed_at: float
    scores: dict[Node, float] = field(default_factory=dict)
    suspended: dict[Node, int] = field(default_factory=dict)


class StickySelection(Selection):
    """Keep sessions per pipeline and model, as mainline does: orchestrators of earlier lists stay in the pool."""

    def __init__(self, listed: pool.Pool, rng: random.Random, spec: scenario.GatewaySpec) -> None:
        """Keep sessions for as long as the gateway does."""
        super().__init__(listed, rng)
        self._spec = spec
        self._kept: dict[tuple[str, str], _Sessions] = {}

    async def select(self, pipeline: str, model: str, wanted: str) -> Node | None:
        """Pick the known orchestrator with the best latency score; discover again if there is none."""
        del wanted
        async with self._building:
            sessions = self._kept.get((pipeline, model))
            if sessions is None or time.monotonic() - sessions.refreshed_at >= self._spec.session_s:
                sessions = self._kept.setdefault((pipeline, model), _Sessions(0.0))
                await self._discover(sessions, pipeline, model)
            for _ in range(4):
                ready = [node for node in sessions.scores if sessions.suspended.get(node, 0) <= 0]
                if ready:
                    break
                sessions.suspended = {node: count - 1 for node, count in sessions.suspended.items()}
                await self._discover(sessions, pipeline, model)
            else:
                return None
            warm = [node for node in ready if node.is_warm(pipeline, model)] or ready
            best = min(sessions.scores[node] for node in warm)
            return self.rng.choice([node for node in warm if sessions.scores[node] == best])

    async def close(self, pipeline: str, model: str, node: Node, *, failed: bool, took_s: float = 0.0) -> None:
        """Score the session, or remove and suspend its orchestrator."""
        sessions = self._kept[pipeline, model]
        if failed:
            sessions.scores.pop(node, None)
            sessions.suspended[node] = 3
        else:
            sessions.scores[node] = took_s

    async def _discover(self, sessions: _Sessions, pipeline: str, model: str) -> None:
        sessions.refreshed_at = time.monotonic()
        for node in serving(await self.pool.infos(), pipeline, model):
            sessions.scores.setdefault(node, 0.0)


def serving(nodes: Sequence[Node], pipeline: str, model: str) -> list[Node]:
    """Keep those who advertise the model."""
    return [node for node in nodes if node.model(pipeline, model) is not None]


def choose(nodes: Sequence[Node], pipeline: str, model: str, rng: random.Random) -> Node | None:
    """Pick one who serves the model, a warm one first."""
    able = serving(nodes, pipeline, model)
    return rng.choice([node for node in able if node.is_warm(pipeline, model)] or able) if able else None
