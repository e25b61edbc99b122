"""Parts: what the routes are given to show and to feed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from jobtester.domain.jobs import Job
from jobtester.domain.received import Received
from jobtester.domain.report import Report
from jobtester.gateway.events import Completed
from jobtester.gateway.lane import Lane
from jobtester.metrics import Metrics
from jobtester.settings import Settings
from jobtester.store.outbox import Outbox
from jobtester.store.results import Results
from jobtester.store.ticks import Ticks
from jobtester.store.views import Views


class Progress(Protocol):
    """The newest tick as it goes: its report, and (job, lane, sent at) of what is in the air by job id."""

    @property
    def report(self) -> Report: ...
    @property
    def in_air(self) -> Mapping[str, tuple[Job, str, float]]: ...


class Health(Protocol):
    """Knows whether the daemon lives, and how its peers are."""

    async def live(self) -> dict[str, dict[str, Any]]:
        """Give each check of the daemon itself: `{"ok": bool, …}` by name."""
        ...

    async def ready(self) -> dict[str, dict[str, Any]]:
        """Give each peer's state: `{"ok": bool, …}` by name."""
        ...

    def peers(self) -> dict[str, dict[str, Any]]:
        """Give each peer's state as it was last seen, without asking anybody."""
        ...


@dataclass(slots=True)
class Parts:
    """Everything routes may use. `settings` is asked anew at each request, since it may change.

    `refused_edit` says why the changed config.toml is not in force, empty if it is. `silence_s` is how long in seconds
    a stream of progress may say nothing.
    """

    settings: Callable[[], Settings]
    lanes: Callable[[], Sequence[Lane]]
    metrics: Metrics
    health: Health
    results: Results
    ticks: Ticks
    outbox: Outbox
    views: Views
    progress: Callable[[], Progress | None]
    next_tick_at: Callable[[], float | None]
    start_tick: Callable[[str], bool]
    simulated: bool
    refresh_metrics: Callable[[], Awaitable[None]]
    heard: Callable[[Lane, Completed], None]
    receive: Callable[[bytes, str, list[Received]], Awaitable[bool]] | None = None
    refused_edit: Callable[[], str] = lambda: ""
    silence_s: float = 15.0
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    rates: dict[str, deque[float]] = field(default_factory=dict)


PARTS = web.AppKey("parts", Parts)
