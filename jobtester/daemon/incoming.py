"""Accept what arrives from outside: events of gateways and results of other testers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from jobtester.crash_boundary import CrashBoundary
from jobtester.domain.external_results import ExternalResult, InvalidStatError
from jobtester.errors import StoreError
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.gateway_events import JobCompletedEvent
from jobtester.leaderboard.delivery import Delivery
from jobtester.metrics import Metrics
from jobtester.store.results import Results
from jobtester.tick.coordinator import TickCoordinator

_MAX_QUEUED_EVENTS = 10_000


@dataclass(slots=True)
class GatewayEventQueue:
    """Queues events of gateways' sinks, so that a sink is answered before its event is weighed."""

    coordinator: TickCoordinator
    metrics: Metrics
    _events: asyncio.Queue[tuple[Gateway, JobCompletedEvent]] = field(
        default_factory=lambda: asyncio.Queue(_MAX_QUEUED_EVENTS)
    )

    def enqueue(self, gateway: Gateway, event: JobCompletedEvent) -> None:
        """Queue an event without waiting. When the queue is full, the event is dropped and counted as `ignored`."""
        try:
            self._events.put_nowait((gateway, event))
        except asyncio.QueueFull:
            self.metrics.events.labels("ignored").inc()

    def __len__(self) -> int:
        return self._events.qsize()

    async def run(self) -> None:
        """Weigh events in the order of their arrival, until canceled. Raises StoreError."""
        while True:
            gateway, event = await self._events.get()
            with CrashBoundary(self.metrics.count_internal_error).unit("event", expected=(StoreError,)):
                await self.coordinator.weigh_late_event(gateway, event)
            # A gateway may send thousands at once, and get() does not wait while the queue has any: without this
            # pause the loop would time no job meanwhile.
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class ExternalResultReceiver:
    """Records results of other testers and has them delivered."""

    results: Results
    delivery: Delivery

    async def receive(self, body: bytes, source: str, external_results: list[ExternalResult]) -> bool:
        """Record one request's results; return False for a repetition of an earlier request.

        Raises InvalidStatError for a region that the Leaderboard does not have.
        """
        region_check = self.delivery.region_check
        if any(region_check.is_known_missing(result.stat.region) for result in external_results):
            raise InvalidStatError("invalid region")
        is_new = await self.results.record_external(body, source, external_results)
        if is_new:
            self.delivery.wake()
        return is_new
