"""Delivery: gets what is in the outbox into the Leaderboard, each stat once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import structlog

from jobtester.errors import LeaderboardError
from jobtester.leaderboard.breaker import Breaker
from jobtester.leaderboard.client import Answer, Client, Fate
from jobtester.store.outbox import Entry, Outbox

log = structlog.get_logger()

_REGION_AGAIN_S = 60.0
_LOOK_AGAIN_S = 15.0
_CLOCK_SLACK_S = 600.0


@dataclass(slots=True)
class State:
    """How delivery stands, for readiness; instants in Unix seconds."""

    region: Literal["unknown", "ok", "wrong"] = "unknown"
    problem: str = ""
    last_stored_at: float | None = None


@dataclass(slots=True)
class Delivery:
    """The worker between outbox and Leaderboard. Everything it knows is in the outbox; it can die at any moment.

    `miss_after_s`: a stat that is not found is believed lost only this long after it was sent, since the server may
    still be storing it. `uncertain` says what to do where reading back is impossible for `max_age_s`.
    """

    outbox: Outbox
    url: str
    secret: str
    region: str
    uncertain: Literal["resend", "hold"] = "resend"
    max_age_s: float = 3600.0
    parallel: int = 4
    miss_after_s: float | None = None
    give_up_reading_s: float = 600.0
    clock: Callable[[], float] = time.time
    breaker: Breaker = field(default_factory=Breaker)
    state: State = field(default_factory=State)
    client: Client = field(init=False)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _region_checked_at: float = float("-inf")
    _regions: frozenset[str] = frozenset()
    _refusals: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Prepare the client; nothing is connected yet."""
        self.client = Client(self.url, self.secret)
        if self.miss_after_s is None:
            self.miss_after_s = 300.0 if "vercel" in self.url else 90.0

    async def open(self) -> None:
        """Make the connection pool."""
        await self.client.open()

    async def close(self) -> None:
        """Close every connection."""
        await self.client.close()

    def wake(self) -> None:
        """Look at the outbox now: something has been recorded."""
        self._woken.set()

    async def check(self) -> str:
        """Try the Leaderboard and the region once. Raises LeaderboardError with what is wrong."""
        regions = await self.client.ai_regions()
        if self.region not in regions:
            raise LeaderboardError(self._wrong_region(regions))
        return f"{self.url} knows region {self.region} for AI stats"

    async def run(self, stop: asyncio.Event) -> None:
        """Post until `stop` is set; what is then on its way is finished."""
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                self._woken.clear()
                busy = await self._work()
                if busy:
                    continue
                woken = asyncio.ensure_future(self._woken.wait())
                await asyncio.wait({woken, stopped}, timeout=await self._pause(), return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            stopped.cancel()

    async def idle(self) -> None:
        """Wait until nothing is left that could be posted now."""
        while await self.outbox.waiting() and self.state.region != "wrong":
            self.wake()
            await asyncio.sleep(0.05)

    async def _work(self) -> bool:
        """Do what can be done now; tell whether there may be more at once."""
        await self.outbox.expire(self.max_age_s)
        looked = await self._look_up()
        if not await self._region_usable():
            return False
        batch = self.breaker.may_send(self.clock(), self.parallel * 8)
        entries = await self.outbox.claim(batch) if batch else []
        if not entries:
            return looked
        slots = asyncio.Semaphore(self.parallel)
        stored: list[int] = []
        async with asyncio.TaskGroup() as group:
            for entry in entries:
                group.create_task(self._send(entry, slots, stored))
        if stored:
            await self.outbox.delivered(stored)
        return self.breaker.failures == 0

    async def _send(self, entry: Entry, slots: asyncio.Semaphore, stored: list[int]) -> None:
        if entry.region != self.region and entry.model and entry.region not in self._regions:
            await self.outbox.refused(entry.seq, f"region {entry.region!r} keeps no AI stats at {self.url}")
            return
        async with slots:
            if self.breaker.failures and self.breaker.may_send(self.clock(), 1) == 0:
                await self.outbox.later(entry.seq, self.breaker.shut_until, self.state.problem)
                return
            answer = await self.client.post(entry.body)
        if answer.fate is Fate.STORED:
            stored.append(entry.seq)
            self.state.last_stored_at = self.clock()
            if self.breaker.succeeded():
                log.info("leaderboard_back", url=self.url)
            self.state.problem = ""
            return
        await self._not_stored(entry, answer)

    async def _not_stored(self, entry: Entry, answer: Answer) -> None:
        """Keep a stat that was not (surely) stored in the state that its answer calls for."""
        now = self.clock()
        foreign = answer.fate is Fate.REGION and entry.region != self.region
        if answer.fate is Fate.REFUSED or foreign:
            await self.outbox.refused(entry.seq, answer.problem)
            kind = answer.problem.split(":")[0]
            if kind not in self._refusals:
                self._refusals.add(kind)
                log.error("stat_refused", url=self.url, result=entry.result, problem=answer.problem)
            self.state.problem = f"stats are refused: {answer.problem}"
            self.breaker.succeeded()
            return
        if self.breaker.failed(now, answer.retry_after_s):
            log.error("leaderboard_failing", url=self.url, problem=answer.problem)
        self.state.problem = answer.problem
        if answer.fate is Fate.UNKNOWN:
            await self.outbox.uncertain(entry.seq, now, answer.problem)
            return
        if answer.fate is Fate.REGION:
            self._region_checked_at = float("-inf")
        await self.outbox.later(entry.seq, self.breaker.shut_until, answer.problem)

    async def _look_up(self) -> bool:
        """Look for uncertain stats at the Leaderboard; tell whether any may be sent again now."""
        resend = False
        for entry in await self.outbox.to_look_up(50):
            now = self.clock()
            sent_at = entry.last_sent_at or entry.created_at
            try:
                found = await self.client.count(
                    orchestrator=entry.address, pipeline=entry.pipeline, model=entry.model, region=entry.region,
                    timestamp=entry.timestamp, round_trip_s=entry.round_trip_s,
                    job=entry.result if not entry.result.startswith("received-") else "",
                    since=(entry.first_sent_at or sent_at) - _CLOCK_SLACK_S, until=now + 86_400,
                )  # fmt: skip
            except LeaderboardError as error:
                resend |= await self._unreadable(entry, now - sent_at, str(error))
                continue
            if found:
                await self.outbox.delivered([entry.seq])
                log.info("stat_found", result=entry.result, rows=found)
                self.state.last_stored_at = now
            elif now - sent_at >= (self.miss_after_s or 0) and await self._region_usable(again=True):
                await self.outbox.resend(entry.seq, maybe_double=False)
                resend = True
            else:
                left = max(0.0, sent_at + (self.miss_after_s or 0) - now)
                await self.outbox.uncertain(entry.seq, now + min(max(left, 1.0), _LOOK_AGAIN_S), entry.problem)
        return resend

    async def _unreadable(self, entry: Entry, age_s: float, problem: str) -> bool:
        """Keep an uncertain stat that cannot be looked for; in the end do with it what is configured."""
        if self.uncertain == "resend" and age_s >= self.give_up_reading_s + (self.miss_after_s or 0):
            log.warning("resent_unseen", result=entry.result, problem="it cannot be read back and may be counted twice")
            await self.outbox.resend(entry.seq, maybe_double=True)
            return True
        await self.outbox.uncertain(entry.seq, self.clock() + _LOOK_AGAIN_S, problem)
        return False

    async def _region_usable(self, *, again: bool = False) -> bool:
        """Tell whether the region keeps AI stats; asked once, and again whenever there is doubt."""
        now = self.clock()
        if self.state.region == "ok" and not again and self._region_checked_at > float("-inf"):
            return True
        if now - self._region_checked_at < (_REGION_AGAIN_S if self.state.region == "wrong" else 0):
            return False
        if self.breaker.may_send(now, 1) == 0:
            return False
        try:
            regions = await self.client.ai_regions()
        except LeaderboardError as error:
            if self.breaker.failed(now):
                log.error("leaderboard_failing", url=self.url, problem=str(error))
            self.state.problem = str(error)
            return False
        self._region_checked_at, self._regions = now, frozenset(regions)
        if self.region in regions:
            if self.state.region != "ok":
                log.info("region_ok", region=self.region, url=self.url)
            self.state.region, self.state.problem = "ok", ""
            if self.breaker.succeeded():
                log.info("leaderboard_back", url=self.url)
            return True
        if self.state.region != "wrong":
            log.error("region_wrong", region=self.region, url=self.url, problem=self._wrong_region(regions))
        self.state.region, self.state.problem = "wrong", self._wrong_region(regions)
        return False

    def _wrong_region(self, regions: Iterable[str]) -> str:
        known = ", ".join(sorted(regions)) or "none"
        return (
            f"region: {self.region!r} keeps no AI stats at {self.url} (it knows {known}); "
            "nothing is posted, results are kept"
        )

    async def _pause(self) -> float | None:
        """Say how long to wait if nobody wakes us."""
        now = self.clock()
        waits = []
        due = await self.outbox.next_due()
        if due is not None:
            waits.append(max(due, self.breaker.shut_until) - now)
            if self.state.region == "wrong":
                waits = [self._region_checked_at + _REGION_AGAIN_S - now]
        return max(0.05, min(waits)) if waits else None
