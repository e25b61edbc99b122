"""Delivery: gets what is in the outbox into the Leaderboard, each stat once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from jobtester.errors import CrashBoundary, LeaderboardError, StoreError
from jobtester.leaderboard.answers import PostAnswer, PostResult
from jobtester.leaderboard.audit import DeliveryAudit
from jobtester.leaderboard.client import LeaderboardClient
from jobtester.leaderboard.in_flight_posts import InFlightPosts
from jobtester.leaderboard.reconciliation import Reconciler
from jobtester.leaderboard.region_check import RegionCheck
from jobtester.leaderboard.status import LeaderboardStatus
from jobtester.store.outbox import Outbox, OutboxEntry, StateChange

log = structlog.get_logger()

_ROUNDS = 8
_STORE_AGAIN_S = 2.0
_NOTICE_S = 2.0
_GATHER_S = 0.2  # what comes in this time goes out together: claiming and settling cost a commit each
_LEAVE_S = 1.0  # what was posted is left at once, and what became of it has to be noted
_EXPIRE_EVERY_S = 30.0
_MISS_AFTER_S = 90.0  # up to 20 s each for connecting, reloading regions and inserting, and some more
_MISS_AFTER_ON_VERCEL_S = 300.0  # the longest that a function may run there
_STOPPED = PostAnswer(PostResult.UNKNOWN, "the tester stopped before the answer")


@dataclass(slots=True)
class Delivery:
    """The worker between outbox and Leaderboard. Everything it knows is in the outbox; it can die at any moment.

    `max_age_s`, `miss_after_s`, `give_up_reading_s` and `answer_within_s`, for each call, are seconds. See `Lookup` for
    `uncertain` and the second and third; `miss_after_s` None goes by the address. `clock` gives Unix seconds,
    `monotonic` measures pauses.
    """

    outbox: Outbox
    url: str
    secret: str
    region: str
    uncertain: Literal["resend", "hold"] = "hold"
    max_age_s: float = 3600.0
    parallel: int = 8
    audit_per_tick: int = 0
    miss_after_s: float | None = None
    give_up_reading_s: float = 600.0
    answer_within_s: float = 30.0
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    crashes: CrashBoundary = CrashBoundary()  # noqa: RUF009 - an immutable value
    status: LeaderboardStatus = field(init=False)
    client: LeaderboardClient = field(init=False)
    region_check: RegionCheck = field(init=False)
    reconciler: Reconciler = field(init=False)
    audit: DeliveryAudit = field(init=False)
    in_flight: InFlightPosts = field(init=False)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _expired_at: float = float("-inf")
    _unsettled: list[StateChange] = field(default_factory=list)
    _posting: set[asyncio.Timeout] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Prepare the parts; nothing is connected yet."""
        self.client = LeaderboardClient(self.url, self.secret, timeout_s=self.answer_within_s, clock=self.clock)
        self.status = LeaderboardStatus(self.url, monotonic=self.monotonic)
        self.region_check = RegionCheck(self.client, self.region, self.status, self.monotonic)
        self.reconciler = Reconciler(
            self.outbox, self.client, self.region_check, self.status, self.uncertain, self.parallel,
            self._patience(self.miss_after_s), self.give_up_reading_s, self.clock, self.crashes,
        )  # fmt: skip
        self.in_flight = InFlightPosts(self.wake)
        self.audit = DeliveryAudit(self.reconciler, self.audit_per_tick, self.clock)

    async def open(self) -> None:
        """Make the connection pool."""
        await self.client.open()

    async def close(self) -> None:
        """Close every connection."""
        await self.client.close()

    def wake(self) -> None:
        """Look at the outbox now: something has been recorded."""
        self._woken.set()

    def reconfigure(
        self, region: str, uncertain: Literal["resend", "hold"], max_age_s: float, parallel: int,
        miss_after_s: float | None, audit_per_tick: int,
    ) -> None:  # fmt: skip
        """Follow changed settings from the next post on."""
        self.max_age_s, self.parallel, self.audit.per_tick = max_age_s, parallel, audit_per_tick
        self.reconciler.uncertain, self.reconciler.parallel = uncertain, parallel
        self.reconciler.miss_after_s = self._patience(miss_after_s)
        if region != self.region:
            self.region = self.region_check.region = region
            self.region_check.invalidate()

    async def check(self) -> str:
        """Try the Leaderboard and the region once. Raises LeaderboardError with what is wrong."""
        known = (await self.client.get_regions()).get("ai", set())
        if self.region not in known:
            raise LeaderboardError(self.region_check.error_message(known))
        return f"{self.url} knows region {self.region} for AI stats"

    async def run(self, stop: asyncio.Event) -> None:
        """Post until `stop` is set; a post that is then still on its way is left uncertain.

        Look-ups have a pace of their own: where reading back is slow, posting is not.
        """
        self._stop = stop
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(self._cut_short)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat(self.post, self._post_pause, stopped))
                group.create_task(self._repeat(self.reconcile, self._look_pause, stopped))
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error
        finally:
            stopped.cancel()
            await self.in_flight.finish(_LEAVE_S)
            with contextlib.suppress(StoreError):  # then they are found to have been on their way at the next start
                await self._settle()

    async def _repeat(
        self, work: Callable[[], Coroutine[Any, Any, bool]], pause_s: Callable[[], Coroutine[Any, Any, float]],
        stopped: asyncio.Future[Any],
    ) -> None:  # fmt: skip
        """Do one kind of work until it is time to stop, with pauses where nothing is due."""
        while not self._stop.is_set():
            pause = _STORE_AGAIN_S
            with contextlib.suppress(StoreError), self.crashes.unit("delivery", expected=(StoreError,)):
                busy = await self._work_until(work(), stopped)
                pause = 0.0 if busy else await pause_s()
            if pause != 0:
                woken = asyncio.ensure_future(self._woken.wait())
                await asyncio.wait({woken, stopped}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                await asyncio.wait({stopped}, timeout=_GATHER_S)

    async def _work_until(self, work: Coroutine[Any, Any, bool], stopped: asyncio.Future[Any]) -> bool:
        """Do what can be done now; once it is time to stop, an answer to what was only asked is not waited for."""
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({working}, timeout=_LEAVE_S)
            return working.done() and working.result()
        finally:
            working.cancel()
            await asyncio.wait({working})

    async def drain(self) -> None:
        """Wait until nothing is left that could be posted now."""
        while await self.outbox.count_waiting() and self.status.region != "wrong":
            self.wake()
            await asyncio.sleep(0.05)

    async def run_once(self) -> bool:
        """Look up and post once what is due; return True if there may be more at once."""
        await self._settle()
        looked = await self.reconcile()
        return await self.post() or looked

    async def reconcile(self) -> bool:
        """Audit, and look for uncertain stats that are due; return True if there may be more at once."""
        await self.audit.run_due()
        due = await self.outbox.next_due()
        looked = due.looked_up is not None and await self.reconciler.run_due()
        if looked:
            self.wake()
        return looked

    async def post(self) -> bool:
        """Post what is due; return True if there may be more at once. Posts that step aside go on afterwards."""
        self._woken.clear()
        await self._settle()
        if self.clock() - self._expired_at >= _EXPIRE_EVERY_S or self.clock() < self._expired_at:
            self._expired_at = self.clock()
            await self.outbox.expire(self.max_age_s)
        due = await self.outbox.next_due()
        if due.posted is None or self.status.open_for_s or not await self.region_check.is_usable():
            return False
        most = self.status.allowed_sends(self.parallel * _ROUNDS)
        entries = await self.outbox.claim(most) if most else []
        if entries:
            await self.in_flight.run((self._send_safely(entry) for entry in entries), self.parallel)
            await self._settle()
        return 0 < len(entries) == most

    async def _settle(self) -> None:
        """Note what became of what was sent; where the store fails, it is kept in mind and noted as soon as it can."""
        if moves := list(self._unsettled):
            await self.outbox.apply(moves)
            del self._unsettled[: len(moves)]

    async def _send_safely(self, entry: OutboxEntry) -> None:
        """Send one stat, and keep in mind where it belongs now."""
        with self.crashes.unit("post", result=entry.result) as crash:
            self._unsettled.append(await self._send(entry))
        if crash.error is not None:
            self._unsettled.append(StateChange(entry.seq, "uncertain", self.clock(), crash.message))

    async def _send(self, entry: OutboxEntry) -> StateChange:
        """Send one stat and say where it belongs now."""
        kind = "ai" if entry.model else "transcoding"
        if (entry.region, kind) != (self.region, "ai") and not await self.region_check.accepts(entry.region, kind):
            if self.status.open_for_s:  # it could not be asked
                return self._later(entry, self.status.problem)
            return StateChange(
                entry.seq, "refused", problem=f"region {entry.region!r} keeps no {kind} stats at {self.url}"
            )
        if self._stop.is_set():
            return StateChange(entry.seq, "pending", problem="stopped before it was sent")
        if self.status.open_for_s:
            return self._later(entry, self.status.problem)
        began = self.monotonic()
        return self._judged(entry, await self._posted(entry), began)

    async def _posted(self, entry: OutboxEntry) -> PostAnswer:
        """Post, but not beyond the end: what has no answer by then may or may not have arrived."""
        try:
            async with asyncio.timeout(None) as scope:
                self._posting.add(scope)
                try:
                    return await self.client.post(entry.body)
                finally:
                    self._posting.discard(scope)
        except TimeoutError:
            return _STOPPED

    def _cut_short(self, _: object) -> None:
        """End what is being posted: the tester stops."""
        for scope in self._posting:
            scope.reschedule(asyncio.get_running_loop().time())

    def _judged(self, entry: OutboxEntry, answer: PostAnswer, began: float) -> StateChange:
        """Take in what the Leaderboard answered to a post that `began` then, and say where the stat belongs now.

        That one got no answer says nothing about the Leaderboard if another, later one got its own.
        """
        if answer.result is PostResult.STORED:
            self.status.on_stored(self.clock())
            return StateChange(entry.seq, "delivered")
        if answer.result is PostResult.REFUSED:
            self.status.on_refused(answer, entry.result)
            return StateChange(entry.seq, "refused", problem=answer.problem)
        if answer is not _STOPPED and (answer.status is not None or self.status.breaker.succeeded_at <= began):
            self.status.on_failure(answer.problem, answer.retry_after_s)
        if answer.result is PostResult.UNKNOWN:
            return StateChange(entry.seq, "uncertain", self.clock(), answer.problem)
        if answer.result is PostResult.REGION:
            self.region_check.invalidate()
        return self._later(entry, answer.problem)

    def _patience(self, miss_after_s: float | None) -> float:
        """Give how many seconds after a post the server has surely stored it or never will."""
        if miss_after_s is not None:
            return miss_after_s
        return _MISS_AFTER_ON_VERCEL_S if "vercel" in self.url else _MISS_AFTER_S

    def _later(self, entry: OutboxEntry, problem: str) -> StateChange:
        return StateChange(entry.seq, "pending", self.clock() + self.status.open_for_s, problem)

    async def _post_pause(self) -> float:
        """Say how many seconds to wait if nobody wakes us: people's commands change the outbox from other processes."""
        due = await self.outbox.next_due()
        if due.posted is None:
            return _NOTICE_S
        wait_s = max(due.posted - self.clock(), self.status.open_for_s, self.region_check.retry_in_s)
        return max(0.05, min(_NOTICE_S, wait_s))

    async def _look_pause(self) -> float:
        """Say how many seconds to wait with the next look-up."""
        due = await self.outbox.next_due()
        if due.looked_up is None:
            return _NOTICE_S
        return max(0.05, min(_NOTICE_S, max(due.looked_up - self.clock(), self.status.open_for_s)))
