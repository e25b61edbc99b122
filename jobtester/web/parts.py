"""Parts: what the routes are given to show and to feed."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from jobtester.domain.received import Received
from jobtester.gateway.events import Completed
from jobtester.gateway.lane import Lane
from jobtester.metrics import Metrics
from jobtester.settings import Settings


class Health(Protocol):
    """Knows whether the daemon lives, and how its peers are."""

    async def live(self) -> dict[str, dict[str, Any]]:
        """Give each check of the daemon itself: `{"ok": bool, …}` by name."""
        ...

    async def ready(self) -> dict[str, dict[str, Any]]:
        """Give each peer's state: `{"ok": bool, …}` by name."""
        ...


@dataclass(slots=True)
class Parts:
    """Everything routes may use. `settings` is asked anew at each request, since it may change."""

    settings: Callable[[], Settings]
    lanes: Callable[[], Sequence[Lane]]
    metrics: Metrics
    health: Health
    refresh_metrics: Callable[[], Awaitable[None]]
    heard: Callable[[Lane, Completed], None]
    receive: Callable[[bytes, str, list[Received]], Awaitable[bool]] | None = None
    rates: dict[str, deque[float]] = field(default_factory=dict)


PARTS = web.AppKey("parts", Parts)
