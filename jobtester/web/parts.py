"""Parts: what the routes are given to show and to feed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

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


PARTS = web.AppKey("parts", Parts)
