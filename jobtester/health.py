"""Vitals: whether the daemon lives and its peers answer, and the figures that are only looked up when asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from jobtester.errors import CrashBoundary
from jobtester.gateway.gateway import Gateway
from jobtester.leaderboard.delivery import Delivery
from jobtester.metrics import Metrics
from jobtester.store.database import Database
from jobtester.store.outbox import Outbox
from jobtester.tick.coordinator import TickCoordinator
from jobtester.tick.scheduler import TickScheduler

log = structlog.get_logger()

_BEAT_S = 1.0
_LATE_BEAT_S = 10.0
_PROBE_S = 60.0
_NOT_CHECKED: dict[str, Any] = {"ok": True, "checked": False}


@dataclass(slots=True)
class HealthMonitor:
    """Watches over the daemon from within. `run()` is its own heartbeat; `parts` tells by name whether each runs."""

    coordinator: TickCoordinator
    scheduler: TickScheduler
    database: Database
    outbox: Outbox
    delivery: Delivery | None
    metrics: Metrics
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    parts: dict[str, bool] = field(default_factory=dict)
    _beat: float = field(default_factory=time.monotonic)
    refused_edit: Callable[[], str] = lambda: ""
    _peers: dict[str, str] = field(default_factory=dict)  # why a gateway does not answer, by name; "" if it does

    async def run(self) -> None:
        """Beat once a second, and look after the store and the gateways between ticks."""
        looked = float("-inf")
        while True:
            self._beat = self.clock()
            with CrashBoundary(self.metrics.count_internal_error).unit("probe"):
                if self._beat - looked >= _PROBE_S or not self.database.is_writable:
                    await self.database.check_writable()
            if self._beat - looked >= _PROBE_S:
                looked = self._beat
                with CrashBoundary(self.metrics.count_internal_error).unit("probe"):
                    await self._look_at_gateways()
            await asyncio.sleep(_BEAT_S)

    async def check_liveness(self) -> dict[str, dict[str, Any]]:
        """Check what makes the daemon alive: its loop, its parts, its store, its clock."""
        late = self.clock() - self._beat
        ended = [name for name, runs in self.parts.items() if not runs]
        checks: dict[str, dict[str, Any]] = {
            "event_loop": _check(f"no beat for {late:.0f} s" if late >= _LATE_BEAT_S else "")
            | {"last_beat_s": round(late, 1)},
            "parts": _check(f"no longer running: {', '.join(ended)}" if ended else ""),
            "store": {"ok": self.database.is_writable},
        }
        if not self.database.is_writable:
            checks["store"]["problem"] = self.database.problem
        due = self.scheduler.schedule.next_at
        if due is not None:
            overdue = self.wall() - due
            late_s = 2 * self.scheduler.schedule.interval_s
            checks["clock"] = _check(f"overdue by {overdue:.0f} s" if overdue > late_s else "") | {"next_tick_at": due}
        return checks

    async def check_readiness(self) -> dict[str, dict[str, Any]]:
        """Check everything that a tick needs: the daemon itself, each gateway, discovery, the Leaderboard."""
        checks = await self.check_liveness()
        gateways = tuple(self.coordinator.gateways)  # a reload may replace them while they are asked
        problems = await asyncio.gather(*(self._ask(gateway) for gateway in gateways))
        for gateway, problem in zip(gateways, problems, strict=True):
            if gateway.trust.is_lost or gateway.trust.missing:
                problem = "it does not use the orchestrator it is told to; nothing that it answers is scored"
            checks[f"gateway {gateway.name}"] = _check(problem)
        checks["discovery"] = self._discovery()
        if edit := self.refused_edit():
            checks["configuration"] = _check(f"the changed file is refused, what was in force stays: {edit}")
        if self.database.damaged_copy is not None:
            checks["store"] = _check(
                f"the file was damaged and is kept as {self.database.damaged_copy}; a new one was begun"
            )
        if self.delivery is not None:
            checks["leaderboard"] = _leaderboard(self.delivery)
        return checks

    def peers(self) -> dict[str, dict[str, Any]]:
        """Return each peer's state as it was last seen; `checked` is False for one that was not asked yet."""
        checks = {}
        for gateway in self.coordinator.gateways:
            problem = self._peers.get(gateway.name)
            if gateway.is_down:
                problem = problem or "it did not answer"
            checks[f"gateway {gateway.name}"] = _NOT_CHECKED if problem is None else _check(problem)
        checks["discovery"] = self._discovery()
        if self.delivery is not None:
            checks["Leaderboard"] = _leaderboard(self.delivery)
        return checks

    def _discovery(self) -> dict[str, Any]:
        if self.coordinator.problem:
            return _check(self.coordinator.problem)
        return _check("") if self.coordinator.reports or self.coordinator.orchestrators else _NOT_CHECKED

    async def refresh_metrics(self) -> None:
        """Bring those figures up to date that nobody counts along the way."""
        counts = await self.outbox.counts()
        for state, count in counts.items():
            self.metrics.outbox.labels(state).set(count)
        self.metrics.outbox_oldest.set(await self.outbox.oldest_age_s(self.wall()))
        if self.delivery is not None:
            self.metrics.stats_lost.set(self.delivery.status.lost)

    async def _look_at_gateways(self) -> None:
        """Ask every gateway; log once when one goes silent, and once when it is back."""
        for gateway in tuple(self.coordinator.gateways):
            await self._ask(gateway)

    async def _ask(self, gateway: Gateway) -> str:
        """Ask a gateway, remember and export what came of it, and return why it does not answer."""
        problem = "an internal error of the tester; its log has the traceback"
        with CrashBoundary(self.metrics.count_internal_error).unit("probe", gateway=gateway.name):
            problem = await gateway.client.find_problem()
        if gateway not in self.coordinator.gateways:  # a reload took it away meanwhile
            return problem
        before = self._peers.get(gateway.name, "")
        if problem and not before:
            log.error("gateway_silent", gateway=gateway.name, url=gateway.client.url, problem=problem)
        elif before and not problem:
            log.info("gateway_answers_again", gateway=gateway.name, url=gateway.client.url)
        self._peers[gateway.name] = problem
        self.metrics.gateway_up.labels(gateway.name).set(int(not problem))
        return problem


def _leaderboard(delivery: Delivery) -> dict[str, Any]:
    problem = delivery.status.problem
    return _check(problem) if problem or delivery.status.was_asked else _NOT_CHECKED


def _check(problem: str) -> dict[str, Any]:
    return {"ok": False, "problem": problem} if problem else {"ok": True}
