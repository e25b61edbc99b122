"""How a gateway picks the orchestrator of an attempt, in each of its modes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobtester.simulator import orchestrator, scenario
from jobtester.simulator.gateway import orchestrator_pool

Node = orchestrator.Orchestrator


class Selection:
    """Build a selector per use, from the webhook's answer of that moment: the tester gateway."""

    def __init__(self, listed: orchestrator_pool.Pool, rng: random.Random, max_price: int = 0) -> None:
        """Share the gateway's pool, its random source, and the most that it pays."""
        self.pool, self.rng, self.max_price = listed, rng, max_price
        self._building = asyncio.Lock()

    async def select(self, pipeline: str, model: str, wanted: str) -> Node | None:
        """Pick somebody who serves the model; `wanted` is the query's orchestrator, and not looked at here."""
        del wanted
        if not self.serving(await self._build(), pipeline, model):
            return None
        await self.pool.refresh()  # its size, once more
        await self.pool.refresh()  # the size again, as the session is stale already
        return self.choose(await self.pool.infos(), pipeline, model)

    async def close(self, pipeline: str, model: str, node: Node, *, failed: bool, took_s: float = 0.0) -> None:
        """Complete or remove the session; either way one more throw-away selector is built."""
        del pipeline, model, node, failed, took_s
        await self._build()

    def serving(self, nodes: Sequence[Node], pipeline: str, model: str) -> list[Node]:
        """Keep those whose info lets them be selected for the model."""
        return [node for node in nodes if node.is_selectable(pipeline, model, self.max_price)]

    def choose(self, nodes: Sequence[Node], pipeline: str, model: str) -> Node | None:
        """Pick one who serves the model, a warm one first."""
        able = self.serving(nodes, pipeline, model)
        return self.rng.choice([node for node in able if node.is_warm(pipeline, model)] or able) if able else None

    async def _build(self) -> list[Node]:
        async with self._building:
            await self.pool.refresh()  # its size
            return await self.pool.infos()


class QuerySelection(Selection):
    """Pick exactly the orchestrator that the request's query names; without one, anybody."""

    async def select(self, pipeline: str, model: str, wanted: str) -> Node | None:
        """Ask the wanted orchestrator for its info, and take it if it serves the model."""
        uris = [wanted] if wanted else await self.pool.refresh()
        return self.choose(await self.pool.ask(uris), pipeline, model)

    async def close(self, pipeline: str, model: str, node: Node, *, failed: bool, took_s: float = 0.0) -> None:
        """Forget the session."""


@dataclass(slots=True)
class _Sessions:
    refreshed_at: float
    scores: dict[Node, float] = field(default_factory=dict)
    suspended: dict[Node, int] = field(default_factory=dict)


class StickySelection(Selection):
    """Keep sessions per pipeline and model, as mainline does: orchestrators of earlier lists stay in the pool."""

    def __init__(self, listed: orchestrator_pool.Pool, rng: random.Random, spec: scenario.GatewaySpec) -> None:
        """Keep sessions for as long as the gateway does."""
        super().__init__(listed, rng, spec.max_price)
        self._spec = spec
        self._kept: dict[tuple[str, str], _Sessions] = {}

    async def select(self, pipeline: str, model: str, wanted: str) -> Node | None:
        """Pick the known orchestrator with the best latency score; discover again if there is none."""
        del wanted
        began = time.monotonic()
        async with self._building:
            sessions = self._kept.get((pipeline, model))
            if sessions is None or time.monotonic() - sessions.refreshed_at >= self._spec.session_s:
                sessions = self._kept.setdefault((pipeline, model), _Sessions(0.0))
                await self._discover(sessions, pipeline, model)
            for _ in range(4):
                ready = [node for node in sessions.scores if sessions.suspended.get(node, 0) <= 0]
                if ready:
                    break
                if not any(count > 0 for count in sessions.suspended.values()) and sessions.refreshed_at > began:
                    return None
                sessions.suspended = {node: count - 1 for node, count in sessions.suspended.items()}
                await self._discover(sessions, pipeline, model)
            else:
                return None
            warm = [node for node in ready if node.is_warm(pipeline, model)] or ready
            best = min(sessions.scores[node] for node in warm)
            return self.rng.choice([node for node in warm if sessions.scores[node] == best])

    async def close(self, pipeline: str, model: str, node: Node, *, failed: bool, took_s: float = 0.0) -> None:
        """Score the session, or remove and suspend its orchestrator; one that took no time has not served."""
        sessions = self._kept[pipeline, model]
        if failed:
            sessions.scores.pop(node, None)
            sessions.suspended[node] = 3
        elif took_s:
            sessions.scores[node] = took_s

    async def _discover(self, sessions: _Sessions, pipeline: str, model: str) -> None:
        sessions.refreshed_at = time.monotonic()
        for node in self.serving(await self.pool.infos(), pipeline, model):
            sessions.scores.setdefault(node, 0.0)


class HalfSelection(StickySelection):
    """Keep sessions, and ask the webhook again at each use nevertheless: the flags are set, their switch has no effect.

    Whoever served well serves again, whomever the webhook names by now.
    """

    async def select(self, pipeline: str, model: str, wanted: str) -> Node | None:
        """Ask three times, and take the best of those who have served; of the others only if there is none."""
        del wanted
        sessions = self._kept.setdefault((pipeline, model), _Sessions(0.0))
        if not sessions.scores and not self.serving(await self._build(), pipeline, model):
            return None
        await self.pool.refresh()  # its size
        await self.pool.refresh()  # the size again, as the session is stale already
        for node in self.serving(await self.pool.infos(), pipeline, model):
            sessions.scores.setdefault(node, 0.0)
        if not sessions.scores:
            return None
        served = [node for node, score in sessions.scores.items() if score > 0]
        return min(served, key=lambda node: sessions.scores[node]) if served else self.rng.choice(list(sessions.scores))
