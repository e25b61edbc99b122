"""Deliver what is in the outbox to the Leaderboard, each stat once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from jobtester.crash_boundary import CrashBoundary
from jobtester.errors import LeaderboardError, StoreError
from jobtester.leaderboard.audit import DeliveryAudit
from jobtester.leaderboard.client import LeaderboardClient
from jobtester.leaderboard.in_flight_posts import InFlightPosts
from jobtester.leaderboard.options import DeliveryOptions, OptionsHolder
from jobtester.leaderboard.poster import OutboxPoster, StatSender
from jobtester.leaderboard.reconciliation import Reconciler
from jobtester.leaderboard.region_check import RegionCheck
from jobtester.leaderboard.stat_reader import StatReader
from jobtester.leaderboard.status import LeaderboardStatus
from jobtester.store.outbox import Outbox

_STORE_RETRY_S = 2.0
_MAX_PAUSE_S = 2.0  # people's commands change the outbox from other processes, which wake nobody
_MIN_PAUSE_S = 0.05
_GATHER_S = 0.2  # what comes in this time goes out together: claiming and settling cost a commit each
_STOP_GRACE_S = 1.0  # unanswered posts are abandoned at once, but their results have to be recorded


@dataclass(slots=True)
class Delivery:
    """The loops between outbox and Leaderboard. All they need to know is in the outbox; they can die at any moment."""

    outbox: Outbox
    client: LeaderboardClient
    status: LeaderboardStatus
    region_check: RegionCheck
    poster: OutboxPoster
    reconciler: Reconciler
    audit: DeliveryAudit
    options: OptionsHolder
    clock: Callable[[], float]
    crashes: CrashBoundary
    _woken: asyncio.Event

    @classmethod
    def create(
        cls,
        outbox: Outbox,
        client: LeaderboardClient,
        options: DeliveryOptions,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        crashes: CrashBoundary | None = None,
    ) -> Delivery:
        """Build the parts; nothing is connected yet. `clock` returns Unix seconds, `monotonic` measures pauses."""
        crashes = crashes if crashes is not None else CrashBoundary()
        holder, woken = OptionsHolder(options), asyncio.Event()
        status = LeaderboardStatus(client.url, monotonic=monotonic)
        region_check = RegionCheck(client, holder, status, monotonic)
        reader = StatReader(outbox, client, clock)
        sender = StatSender(client, region_check, status, holder, clock)
        in_flight = InFlightPosts(woken.set, status.on_silence)
        poster = OutboxPoster(outbox, sender, region_check, status, in_flight, holder, clock, crashes)
        reconciler = Reconciler(outbox, reader, region_check, status, holder, clock, crashes)
        audit = DeliveryAudit(outbox, reader, region_check, status, holder, clock)
        return cls(outbox, client, status, region_check, poster, reconciler, audit, holder, clock, crashes, woken)

    async def open(self) -> None:
        """Create the connection pool."""
        await self.client.open()

    async def close(self) -> None:
        """Close every connection."""
        await self.client.close()

    def wake(self) -> None:
        """Look at the outbox now: something was recorded."""
        self._woken.set()

    def reconfigure(self, options: DeliveryOptions) -> None:
        """Use changed options from the next post on."""
        before, self.options.current = self.options.current, options
        if options.region != before.region:
            self.region_check.invalidate()

    async def check(self) -> str:
        """Try the Leaderboard and the region once. Raises LeaderboardError with what is wrong."""
        ai_regions = (await self.client.get_regions()).get("ai", set())
        region = self.options.current.region
        if region not in ai_regions:
            raise LeaderboardError(self.region_check.error_message(ai_regions))
        return f"{self.client.url} knows region {region} for AI stats"

    async def run(self, stop: asyncio.Event) -> None:
        """Post until `stop` is set; a post that is then still in flight is left uncertain.

        Look-ups have a loop of their own: where reading back is slow, posting is not.
        """
        self.poster.sender.start()
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self.poster.sender.stop())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat("post", self.post, stopped))
                group.create_task(self._repeat("look up", self.reconcile, stopped))
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error
        finally:
            stopped.cancel()
            await self.poster.in_flight.finish(_STOP_GRACE_S)
            # If the store fails here, the next start finds these stats as claimed, and looks for them.
            with contextlib.suppress(StoreError):
                await self.poster.settle()

    async def run_once(self) -> bool:
        """Look up and post once what is due; return True if there may be more at once."""
        await self.poster.settle()
        looked_up = await self.reconcile()
        return await self.post() or looked_up

    async def drain(self) -> None:
        """Wait until nothing is left that could be posted now."""
        while await self.outbox.count_waiting() and self.status.region != "unusable":
            self.wake()
            await asyncio.sleep(0.05)

    async def reconcile(self) -> bool:
        """Audit, and look up uncertain stats that are due; return True if there may be more at once."""
        await self.audit.run_due()
        due = await self.outbox.next_due()
        looked_up = due.looked_up is not None and await self.reconciler.run_due()
        if looked_up:
            self.wake()
        return looked_up

    async def post(self) -> bool:
        """Post what is due; return True if there may be more at once."""
        self._woken.clear()
        return await self.poster.post_due()

    async def _repeat(
        self,
        kind: Literal["post", "look up"],
        work: Callable[[], Coroutine[Any, Any, bool]],
        stopped: asyncio.Future[Any],
    ) -> None:
        """Do one kind of work until `stopped`, with pauses where nothing is due."""
        while not stopped.done():
            pause = _STORE_RETRY_S
            with contextlib.suppress(StoreError), self.crashes.unit("delivery", expected=(StoreError,)):
                has_more = await self._work_until(work(), stopped)
                pause = 0.0 if has_more else await self._pause_s(kind)
            if pause != 0:
                woken = asyncio.ensure_future(self._woken.wait())
                await asyncio.wait({woken, stopped}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                await asyncio.wait({stopped}, timeout=_GATHER_S)

    async def _work_until(self, work: Coroutine[Any, Any, bool], stopped: asyncio.Future[Any]) -> bool:
        """Do what can be done now. After `stopped` the answer to a mere question is not waited for."""
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({working}, timeout=_STOP_GRACE_S)
            return working.done() and working.result()
        finally:
            working.cancel()
            await asyncio.wait({working})

    async def _pause_s(self, kind: Literal["post", "look up"]) -> float:
        due = await self.outbox.next_due()
        due_at = due.posted if kind == "post" else due.looked_up
        if due_at is None:
            return _MAX_PAUSE_S
        # Only posts depend on the region: a row can be read back whatever happened to the region since.
        blocked_s = self.region_check.retry_in_s if kind == "post" else self.reconciler.resting_s
        return max(_MIN_PAUSE_S, min(_MAX_PAUSE_S, max(due_at - self.clock(), self.status.open_for_s, blocked_s)))
