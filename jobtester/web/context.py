"""Hold the parts of the tester that the routes use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from jobtester.domain.external_results import ExternalResult
from jobtester.domain.jobs import Job
from jobtester.domain.tick_report import TickReport
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.gateway_events import JobCompletedEvent
from jobtester.metrics import Metrics
from jobtester.pipelines.assets import Assets
from jobtester.settings.model import Settings
from jobtester.store.full_results import FullResults
from jobtester.store.history import History
from jobtester.store.live_runners import LiveRunners
from jobtester.store.outbox import Outbox
from jobtester.store.queries import Queries
from jobtester.store.skips import Skips
from jobtester.store.ticks import Ticks


class ProgressView(Protocol):
    """The newest tick. A job in flight is (job, gateway, sent at) by job id."""

    @property
    def report(self) -> TickReport:
        """Return the report so far."""
        ...

    @property
    def in_flight(self) -> Mapping[str, tuple[Job, str, float]]:
        """Return the jobs in flight."""
        ...


class HealthChecks(Protocol):
    """Knows whether the daemon lives, and how its peers are. A check is `{"ok": bool, …}` by name."""

    async def check_liveness(self) -> dict[str, dict[str, Any]]:
        """Check the daemon itself."""
        ...

    async def check_readiness(self) -> dict[str, dict[str, Any]]:
        """Check the daemon and each peer."""
        ...

    def peers(self) -> dict[str, dict[str, Any]]:
        """Return each peer's state as it was last seen, without a request."""
        ...

    async def refresh_metrics(self) -> None:
        """Update the metrics that are only looked up when somebody reads them."""
        ...

    @property
    def config_problem(self) -> Callable[[], str]:
        """Return why the changed config.toml is not in force, empty if it is."""
        ...


@dataclass(frozen=True, slots=True)
class Stores:
    """The tables that routes read."""

    ticks: Ticks
    outbox: Outbox
    queries: Queries
    full_results: FullResults
    live_runners: LiveRunners
    skips: Skips
    history: History


@dataclass(frozen=True, slots=True)
class WebContext:
    """Everything that routes may use. What may change while the daemon runs is a function, called at each request."""

    settings: Callable[[], Settings]
    assets: Callable[[], Assets]
    gateways: Callable[[], Sequence[Gateway]]
    metrics: Metrics
    health: HealthChecks
    stores: Stores
    progress: Callable[[], ProgressView | None]
    next_tick_at: Callable[[], float | None]
    start_tick: Callable[[str], bool]
    simulated: bool
    enqueue_event: Callable[[Gateway, JobCompletedEvent], None]
    receive_results: Callable[[bytes, str, list[ExternalResult]], Awaitable[bool]] | None = None


CONTEXT = web.AppKey("context", WebContext)
CLOSING = web.AppKey("closing", asyncio.Event)  # set when the server stops, to end what would stream forever
