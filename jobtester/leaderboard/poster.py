"""Post what is due in the outbox, and record the results there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobtester.crash_boundary import CrashBoundary
from jobtester.leaderboard.client import LeaderboardClient, PostAnswer, PostResult
from jobtester.leaderboard.in_flight_posts import InFlightPosts
from jobtester.leaderboard.options import OptionsHolder
from jobtester.leaderboard.region_check import RegionCheck
from jobtester.leaderboard.status import LeaderboardStatus
from jobtester.store.outbox import Outbox, OutboxEntry, StateChange

_CLAIMS_PER_SLOT = 8
_EXPIRE_INTERVAL_S = 30.0
_STOPPED = PostAnswer(PostResult.UNCERTAIN, "the tester stopped before the answer")


@dataclass(slots=True)
class StatSender:
    """Send single stats, and say where each belongs afterwards.

    A post is *uncertain* if it got no answer, or one that can also come after the server stored the stat. Such a stat
    is never simply sent again, since it would count twice, nor given up: the reconciler looks for it.
    """

    client: LeaderboardClient
    region_check: RegionCheck
    status: LeaderboardStatus
    options: OptionsHolder
    clock: Callable[[], float] = time.time
    _stopping: bool = False
    _timeouts: set[asyncio.Timeout] = field(default_factory=set)

    def start(self) -> None:
        """Allow sending, after an earlier stop as well."""
        self._stopping = False

    def stop(self) -> None:
        """Send nothing more, and end what is being sent."""
        self._stopping = True
        for timeout in self._timeouts:
            timeout.reschedule(asyncio.get_running_loop().time())

    async def send(self, entry: OutboxEntry) -> StateChange:
        """Send one stat and return where it belongs now."""
        kind, region = "ai" if entry.model else "transcoding", self.options.current.region
        if (entry.region, kind) != (region, "ai") and not await self.region_check.accepts(entry.region, kind):
            if self.status.open_for_s:  # the regions could not be asked for
                return self._retry_later(entry, self.status.problem)
            problem = f"region {entry.region!r} keeps no {kind} stats at {self.client.url}"
            return StateChange(entry.seq, "refused", problem=problem)
        if self._stopping:
            return StateChange(entry.seq, "pending", problem="stopped before it was sent")
        if self.status.open_for_s:  # another post of the same batch opened the breaker meanwhile
            return self._retry_later(entry, self.status.problem)
        began = self.status.monotonic()
        return self._change_after(entry, await self._post(entry), began)

    async def _post(self, entry: OutboxEntry) -> PostAnswer:
        """Post, but not beyond the stop: what has no answer by then may or may not have arrived."""
        try:
            async with asyncio.timeout(None) as timeout:
                self._timeouts.add(timeout)
                try:
                    return await self.client.post(entry.body)
                finally:
                    self._timeouts.discard(timeout)
        except TimeoutError:
            return _STOPPED

    def _change_after(self, entry: OutboxEntry, answer: PostAnswer, began: float) -> StateChange:
        """Return where a stat belongs after the answer to its post, which `began` on the monotonic clock."""
        if answer.result is PostResult.STORED:
            self.status.on_stored()
            return StateChange(entry.seq, "delivered")
        if answer.result is PostResult.REFUSED:
            self.status.on_refused(answer, entry.result)
            return StateChange(entry.seq, "refused", problem=answer.problem)
        # A post without an answer says nothing new if a later one got its own, or if the outage is known since.
        if answer is not _STOPPED and (answer.status is not None or self.status.is_news(began)):
            self.status.on_failure(answer.problem, answer.retry_after_s)
        if answer.result is PostResult.UNCERTAIN:
            return StateChange(entry.seq, "uncertain", self.clock(), answer.problem)
        # `invalid region` also comes while the database is down, so the region is asked for before anything is decided.
        if answer.result is PostResult.REGION_REJECTED:
            self.region_check.invalidate()
        return self._retry_later(entry, answer.problem)

    def _retry_later(self, entry: OutboxEntry, problem: str) -> StateChange:
        return StateChange(entry.seq, "pending", self.clock() + self.status.open_for_s, problem)


@dataclass(slots=True)
class OutboxPoster:
    """Claim due stats, send them, and settle each in the outbox.

    A stat is claimed, durably, before any byte of it leaves, and settled after its answer. Where the process dies in
    between, the next start finds the claim and treats the post as uncertain. Where the store fails in between, the
    results wait in memory and are written before anything else is claimed.
    """

    outbox: Outbox
    sender: StatSender
    region_check: RegionCheck
    status: LeaderboardStatus
    in_flight: InFlightPosts
    options: OptionsHolder
    clock: Callable[[], float] = time.time
    crashes: CrashBoundary = CrashBoundary()  # noqa: RUF009 - an immutable value
    _unsettled: list[StateChange] = field(default_factory=list)
    _expired_at: float = float("-inf")

    async def post_due(self) -> bool:
        """Post what is due; return True if there may be more at once. Posts that step aside go on afterwards."""
        await self.settle()
        now, options = self.clock(), self.options.current
        if not 0 <= now - self._expired_at < _EXPIRE_INTERVAL_S:
            self._expired_at = now
            await self.outbox.expire(options.max_age_s)
        due = await self.outbox.next_due()
        if due.posted is None or self.status.open_for_s or not await self.region_check.is_usable():
            return False
        limit = self.status.allowed_sends(options.parallel * _CLAIMS_PER_SLOT)
        entries = await self.outbox.claim(limit) if limit else []
        if entries:
            posts, is_probe = (self._send_safely(entry) for entry in entries), self.status.is_failing
            await self.in_flight.run(posts, options.parallel, is_probe=is_probe)
            await self.settle()
        return 0 < len(entries) == limit

    async def settle(self) -> None:
        """Write the results of posts to the outbox. Raises StoreError; the results are then kept for the next call."""
        # All in one transaction: a commit for each would cost more than the posts. Late posts append meanwhile, so only
        # what was written is removed.
        if changes := list(self._unsettled):
            await self.outbox.apply(changes)
            del self._unsettled[: len(changes)]

    async def _send_safely(self, entry: OutboxEntry) -> None:
        with self.crashes.unit("post", result=entry.result) as crash:
            self._unsettled.append(await self.sender.send(entry))
        if crash.error is not None:
            self._unsettled.append(StateChange(entry.seq, "uncertain", self.clock(), crash.message))
