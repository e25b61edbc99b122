"""Check the health of the daemon and its peers, and refresh metrics that nothing counts along the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from jobtester.crash_boundary import CrashBoundary
from jobtester.gateway.gateway import Gateway
from jobtester.leaderboard.delivery import Delivery
from jobtester.metrics import Metrics
from jobtester.store.database import Database
from jobtester.store.outbox import Outbox
from jobtester.tick.coordinator import TickCoordinator
from jobtester.tick.scheduler import TickScheduler

log = structlog.get_logger()

_HEARTBEAT_S = 1.0
_MAX_HEARTBEAT_AGE_S = 10.0
_PROBE_INTERVAL_S = 60.0
_NOT_CHECKED: dict[str, Any] = {"ok": True, "checked": False}


@dataclass(slots=True)
class HealthMonitor:
    """Checks the daemon from within, and its peers.

    `components` holds by name whether each runs. `config_problem` returns why the changed file is not in force.
    """

    coordinator: TickCoordinator
    scheduler: TickScheduler
    database: Database
    outbox: Outbox
    delivery: Delivery | None
    metrics: Metrics
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    config_problem: Callable[[], str] = lambda: ""
    components: dict[str, bool] = field(default_factory=dict)
    _heartbeat_at: float = field(default_factory=time.monotonic)
    _gateway_problems: dict[str, str] = field(default_factory=dict)  # by name; "" for one that answers

    async def run(self) -> None:
        """Beat once a second, and probe the store and the gateways once a minute, until canceled."""
        probed_at = float("-inf")
        while True:
            self._heartbeat_at = self.clock()
            is_due = self._heartbeat_at - probed_at >= _PROBE_INTERVAL_S
            # A store that cannot be written is tried at every beat: jobs wait for it, and each second without them
            # is lost.
            if is_due or not self.database.is_writable:
                with CrashBoundary(self.metrics.count_internal_error).unit("probe"):
                    await self.database.check_writable()
            if is_due:
                probed_at = self._heartbeat_at
                with CrashBoundary(self.metrics.count_internal_error).unit("probe"):
                    for gateway in tuple(self.coordinator.gateways):
                        await self._probe(gateway)
            await asyncio.sleep(_HEARTBEAT_S)

    async def check_liveness(self) -> dict[str, dict[str, Any]]:
        """Return the checks of the daemon itself by name: its event loop, its components, its store, its clock."""
        age_s = self.clock() - self._heartbeat_at
        ended = [name for name, is_running in self.components.items() if not is_running]
        checks: dict[str, dict[str, Any]] = {
            "event_loop": _check(f"no heartbeat for {age_s:.0f} s" if age_s >= _MAX_HEARTBEAT_AGE_S else "")
            | {"last_beat_s": round(age_s, 1)},
            "components": _check(f"no longer running: {', '.join(ended)}" if ended else ""),
            "store": {"ok": self.database.is_writable},
        }
        if not self.database.is_writable:
            checks["store"]["problem"] = self.database.problem
        next_at = self.scheduler.schedule.next_at
        if next_at is not None:
            # Twice the interval: one tick may be missed because the one before it ran long, and all is well.
            overdue_s = self.wall() - next_at
            max_overdue_s = 2 * self.scheduler.schedule.interval_s
            problem = f"the next tick is overdue by {overdue_s:.0f} s" if overdue_s > max_overdue_s else ""
            checks["clock"] = _check(problem) | {"next_tick_at": next_at}
        return checks

    async def check_readiness(self) -> dict[str, dict[str, Any]]:
        """Return the checks of all that a tick needs by name: the daemon, each gateway, discovery, the Leaderboard."""
        checks = await self.check_liveness()
        gateways = tuple(self.coordinator.gateways)  # a reload may replace them while they are asked
        problems = await asyncio.gather(*(self._probe(gateway) for gateway in gateways))
        for gateway, problem in zip(gateways, problems, strict=True):
            if gateway.trust.is_lost or gateway.trust.missing:
                problem = "it does not use the orchestrator that the tester names; none of its answers is scored"
            checks[gateway.label] = _check(problem)
        checks["discovery"] = self._check_discovery()
        if problem := self.config_problem():
            checks["configuration"] = _check(f"the changed file is rejected, the previous one is in force: {problem}")
        if self.database.damaged_copy is not None:
            checks["store"] = _check(
                f"the file was damaged and is kept as {self.database.damaged_copy}; a new one was begun"
            )
        if self.delivery is not None:
            checks["leaderboard"] = _check_leaderboard(self.delivery)
        return checks

    def peers(self) -> dict[str, dict[str, Any]]:
        """Return each peer's last known state without asking it; `checked` is False for one not asked yet."""
        checks = {}
        for gateway in self.coordinator.gateways:
            problem = self._gateway_problems.get(gateway.name)
            if gateway.is_down:
                problem = problem or "it did not answer"
            checks[gateway.label] = _NOT_CHECKED if problem is None else _check(problem)
        checks["discovery"] = self._check_discovery()
        if self.delivery is not None:
            checks["Leaderboard"] = _check_leaderboard(self.delivery)
        return checks

    async def refresh_metrics(self) -> None:
        """Set the metrics of the outbox and of lost stats, which are only computed when somebody reads them."""
        for state, count in (await self.outbox.counts()).items():
            self.metrics.outbox.labels(state).set(count)
        self.metrics.outbox_oldest.set(await self.outbox.oldest_age_s(self.wall()))
        if self.delivery is not None:
            self.metrics.stats_lost.set(self.delivery.status.lost)

    async def _probe(self, gateway: Gateway) -> str:
        """Ask a gateway, log and export a change of its state, and return why it does not answer."""
        problem = "an internal error of the tester; its log has the traceback"
        with CrashBoundary(self.metrics.count_internal_error).unit("probe", gateway=gateway.name):
            problem = await gateway.client.find_problem()
        if gateway not in self.coordinator.gateways:  # a reload removed it meanwhile
            return problem
        previous_problem = self._gateway_problems.get(gateway.name, "")
        if problem and not previous_problem:
            log.error("gateway_down", gateway=gateway.name, url=gateway.client.url, problem=problem)
        elif previous_problem and not problem:
            log.info("gateway_recovered", gateway=gateway.name, url=gateway.client.url)
        self._gateway_problems[gateway.name] = problem
        self.metrics.gateway_up.labels(gateway.name).set(int(not problem))
        return problem

    def _check_discovery(self) -> dict[str, Any]:
        if self.coordinator.problem:
            return _check(self.coordinator.problem)
        return _check("") if self.coordinator.reports or self.coordinator.planner.orchestrators else _NOT_CHECKED


def _check_leaderboard(delivery: Delivery) -> dict[str, Any]:
    problem = delivery.status.problem
    return _check(problem) if problem or delivery.status.was_asked else _NOT_CHECKED


def _check(problem: str) -> dict[str, Any]:
    return {"ok": False, "problem": problem} if problem else {"ok": True}
