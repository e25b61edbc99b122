"""Parts: what the routes are given to show and to feed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from jobtester.domain.external_results import ExternalResult
from jobtester.domain.jobs import Job
from jobtester.domain.tick_report import TickReport
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.gateway_events import JobCompletedEvent
from jobtester.metrics import Metrics
from jobtester.settings.model import Settings
from jobtester.store.outbox import Outbox
from jobtester.store.queries import Queries
from jobtester.store.results import Results
from jobtester.store.ticks import Ticks


class ProgressView(Protocol):
    """The newest tick as it goes: its report, and (job, gateway, sent at) of what is in the air by job id."""

    @property
    def report(self) -> TickReport: ...
    @property
    def in_flight(self) -> Mapping[str, tuple[Job, str, float]]: ...


class HealthChecks(Protocol):
    """Knows whether the daemon lives, and how its peers are."""

    async def check_liveness(self) -> dict[str, dict[str, Any]]:
        """Give each check of the daemon itself: `{"ok": bool, …}` by name."""
        ...

    async def check_readiness(self) -> dict[str, dict[str, Any]]:
        """Give each peer's state: `{"ok": bool, …}` by name."""
        ...

    def peers(self) -> dict[str, dict[str, Any]]:
        """Give each peer's state as it was last seen, without asking anybody."""
        ...


@dataclass(slots=True)
class WebContext:
    """Everything routes may use. `settings` is asked anew at each request, since it may change.

    `refused_edit` says why the changed config.toml is not in force, empty if it is. `silence_s` is how long in seconds
    a stream of progress may say nothing.
    """

    settings: Callable[[], Settings]
    gateways: Callable[[], Sequence[Gateway]]
    metrics: Metrics
    health: HealthChecks
    results: Results
    ticks: Ticks
    outbox: Outbox
    queries: Queries
    progress: Callable[[], ProgressView | None]
    next_tick_at: Callable[[], float | None]
    start_tick: Callable[[str], bool]
    simulated: bool
    refresh_metrics: Callable[[], Awaitable[None]]
    enqueue_event: Callable[[Gateway, JobCompletedEvent], None]
    receive_results: Callable[[bytes, str, list[ExternalResult]], Awaitable[bool]] | None = None
    refused_edit: Callable[[], str] = lambda: ""
    silence_s: float = 15.0
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    rates: dict[str, deque[float]] = field(default_factory=dict)


CONTEXT = web.AppKey("parts", WebContext)
