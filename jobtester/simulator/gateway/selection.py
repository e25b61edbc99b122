"""How a gateway picks the orchestrator of an attempt, in each of its modes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobtester.simulator.gateway.orchestrator_pool import OrchestratorPool
from jobtester.simulator.orchestrator import Orchestrator
from jobtester.simulator.scenario import GatewaySpec


class Selection:
    """The tester gateway's selection: a new selector for each use, out of the webhook's list of that moment.

    How often each step queries the webhook (its comments say what for) is part of go-livepeer's behavior: by the
    pattern of these queries a tester tells the tries of its job apart.
    """

    def __init__(self, pool: OrchestratorPool, rng: random.Random, max_price: int = 0) -> None:
        self.pool, self.rng, self.max_price = pool, rng, max_price
        self._selector_lock = asyncio.Lock()

    async def select(self, pipeline: str, model: str, requested_uri: str) -> Orchestrator | None:
        """Return an orchestrator that serves the model. `requested_uri`, from the query, counts in query mode only."""
        del requested_uri
        if not self.select_serving(await self._build_selector(), pipeline, model):
            return None
        await self.pool.refresh_uris()  # its size, once more
        await self.pool.refresh_uris()  # the size again, as the session is stale already
        return self.choose(await self.pool.collect_infos(), pipeline, model)

    async def close_session(
        self, pipeline: str, model: str, node: Orchestrator, *, failed: bool, took_s: float = 0.0
    ) -> None:
        """Complete or remove the session; either way, build one more selector, which nobody uses."""
        del pipeline, model, node, failed, took_s
        await self._build_selector()

    def select_serving(self, nodes: Sequence[Orchestrator], pipeline: str, model: str) -> list[Orchestrator]:
        """Return the nodes that can be selected for the model at the gateway's price."""
        return [node for node in nodes if node.is_selectable(pipeline, model, self.max_price)]

    def choose(self, nodes: Sequence[Orchestrator], pipeline: str, model: str) -> Orchestrator | None:
        """Return one of the nodes that serve the model, a warm one if there is one."""
        serving = self.select_serving(nodes, pipeline, model)
        warm = [node for node in serving if node.is_warm(pipeline, model)]
        return self.rng.choice(warm or serving) if serving else None

    async def _build_selector(self) -> list[Orchestrator]:
        async with self._selector_lock:
            await self.pool.refresh_uris()  # its size
            return await self.pool.collect_infos()


class QuerySelection(Selection):
    """Selects exactly the orchestrator that the request's query names; without one, any."""

    async def select(self, pipeline: str, model: str, requested_uri: str) -> Orchestrator | None:
        """Query the requested orchestrator for its info, and return it if it serves the model."""
        uris = [requested_uri] if requested_uri else await self.pool.refresh_uris()
        return self.choose(await self.pool.query_infos(uris), pipeline, model)

    async def close_session(
        self, pipeline: str, model: str, node: Orchestrator, *, failed: bool, took_s: float = 0.0
    ) -> None:
        """Do nothing: this gateway has no sessions."""


@dataclass(slots=True)
class _Sessions:
    """The sessions of one pipeline and model: latency scores, and for how many refreshes a node stays suspended."""

    refreshed_at: float
    scores: dict[Orchestrator, float] = field(default_factory=dict)
    suspended: dict[Orchestrator, int] = field(default_factory=dict)


class StickySelection(Selection):
    """Mainline's selection: sessions per pipeline and model, so that an orchestrator is used again while it succeeds.

    The webhook is queried when there is no usable session or the sessions are old, and only adds to them: orchestrators
    of earlier lists stay. This is why a tester cannot steer a standard gateway by its webhook.
    """

    def __init__(self, pool: OrchestratorPool, rng: random.Random, spec: GatewaySpec) -> None:
        super().__init__(pool, rng, spec.max_price)
        self._spec = spec
        self._sessions: dict[tuple[str, str], _Sessions] = {}

    async def select(self, pipeline: str, model: str, requested_uri: str) -> Orchestrator | None:
        """Return the orchestrator with the lowest latency score; discover again if no session is usable."""
        del requested_uri
        began = time.monotonic()
        async with self._selector_lock:
            sessions = self._sessions.get((pipeline, model))
            if sessions is None or time.monotonic() - sessions.refreshed_at >= self._spec.session_s:
                sessions = self._sessions.setdefault((pipeline, model), _Sessions(0.0))
                await self._discover(sessions, pipeline, model)
            # A failure suspends an orchestrator for three refreshes; a fourth round finds it usable again.
            for _ in range(4):
                usable = [node for node in sessions.scores if sessions.suspended.get(node, 0) <= 0]
                if usable:
                    break
                if not any(count > 0 for count in sessions.suspended.values()) and sessions.refreshed_at > began:
                    return None
                sessions.suspended = {node: count - 1 for node, count in sessions.suspended.items()}
                await self._discover(sessions, pipeline, model)
            else:
                return None
            warm = [node for node in usable if node.is_warm(pipeline, model)] or usable
            best_score = min(sessions.scores[node] for node in warm)
            return self.rng.choice([node for node in warm if sessions.scores[node] == best_score])

    async def close_session(
        self, pipeline: str, model: str, node: Orchestrator, *, failed: bool, took_s: float = 0.0
    ) -> None:
        """Score the session, or remove it and suspend its orchestrator. `took_s` 0: it stays without a new score."""
        sessions = self._sessions[pipeline, model]
        if failed:
            sessions.scores.pop(node, None)
            sessions.suspended[node] = 3
        elif took_s:
            sessions.scores[node] = took_s

    async def _discover(self, sessions: _Sessions, pipeline: str, model: str) -> None:
        sessions.refreshed_at = time.monotonic()
        for node in self.select_serving(await self.pool.collect_infos(), pipeline, model):
            sessions.scores.setdefault(node, 0.0)


class HalfSelection(StickySelection):
    """The selection of a gateway whose tester flags are set though their switch has no effect.

    It queries the webhook at each use, as the tester gateway does, but keeps its sessions: the one that served well
    serves again, whichever orchestrator the webhook names by now.
    """

    async def select(self, pipeline: str, model: str, requested_uri: str) -> Orchestrator | None:
        """Query the webhook, and return the fastest orchestrator that has served; any other only if none has."""
        del requested_uri
        sessions = self._sessions.setdefault((pipeline, model), _Sessions(0.0))
        if not sessions.scores and not self.select_serving(await self._build_selector(), pipeline, model):
            return None
        await self.pool.refresh_uris()  # its size
        await self.pool.refresh_uris()  # the size again, as the session is stale already
        for node in self.select_serving(await self.pool.collect_infos(), pipeline, model):
            sessions.scores.setdefault(node, 0.0)
        if not sessions.scores:
            return None
        proven = [node for node, score in sessions.scores.items() if score > 0]
        if proven:
            return min(proven, key=lambda node: sessions.scores[node])
        return self.rng.choice(list(sessions.scores))
