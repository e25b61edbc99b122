"""The look-up: finds out whether a stat whose post had no sure answer was stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog

from jobtester.errors import CrashBoundary, LeaderboardError
from jobtester.leaderboard.client import LeaderboardClient
from jobtester.leaderboard.proof import Completeness, LookUp, StatProof, conclude, counts_as_evidence
from jobtester.leaderboard.region_check import RegionCheck
from jobtester.leaderboard.stat_reader import StatReader
from jobtester.leaderboard.status import LeaderboardStatus
from jobtester.store.outbox import Outbox, OutboxEntry, StateChange

log = structlog.get_logger()

_AT_ONCE = 40
_AGAIN_S = 15.0
_SOON_S = 1.0
_UNPROVEN = {
    Completeness.CONTROL_MISSING: "the answer lacks an older stat that was stored, so it may lack this one too",
    Completeness.WITNESS_MISSING: "the answers do not show a stat that was stored, so they prove nothing",
    Completeness.CONTROL_GONE: "not found, nor is an older stat that was stored; it is looked for again",
    Completeness.WITNESS_SHOWN: "not found, with nothing in the same answer to compare with; it is looked for again",
    Completeness.NOTHING_TO_COMPARE: "not found, but no stat was ever stored that would show whether answers are whole",
}


@dataclass(slots=True)
class Reconciler:
    """Looks for uncertain stats among the rows that the Leaderboard gives out.

    `miss_after_s`: a stat that is not found is believed lost only this long after it was sent, since the server may
    still be storing it. Where nothing can be read back for `give_up_s` more, or nothing that is read proves anything,
    `uncertain` says what to do.
    """

    outbox: Outbox
    client: LeaderboardClient
    region_check: RegionCheck
    status: LeaderboardStatus
    uncertain: Literal["resend", "hold"]
    parallel: int
    miss_after_s: float
    give_up_s: float
    clock: Callable[[], float] = time.time
    crashes: CrashBoundary = CrashBoundary()  # noqa: RUF009 - an immutable value
    reader: StatReader = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the reader."""
        self.reader = StatReader(self.outbox, self.client, self.clock)

    async def run_due(self) -> bool:
        """Look for what is due; tell whether there was anything."""
        if self.status.open_for_s:
            return False
        entries = await self.outbox.due_look_ups(_AT_ONCE)
        if not entries:
            return False
        slots = asyncio.Semaphore(self.parallel)
        moves = await asyncio.gather(*(self._look_safely(entry, slots) for entry in entries))
        await self.outbox.apply(moves)
        return True

    async def _look_safely(self, entry: OutboxEntry, slots: asyncio.Semaphore) -> StateChange:
        with self.crashes.unit("lookup", result=entry.result) as crash:
            return await self._look(entry, slots)
        return StateChange(entry.seq, "uncertain", self.clock() + _AGAIN_S, crash.message)

    async def _look(self, entry: OutboxEntry, slots: asyncio.Semaphore) -> StateChange:
        """Look for one stat and say where it belongs now."""
        async with slots:
            age_s = self.clock() - (entry.last_sent_at or entry.created_at)
            try:
                look = await self.reader.look_up(entry, decisive=age_s >= self.miss_after_s)
                self.status.on_read_back("")
            except LeaderboardError as error:
                self.status.on_read_back(str(error))
                return self._unreadable(entry, str(error))
        now = self.clock()
        match conclude(look, self.miss_after_s, guess=self.uncertain == "resend"):
            case StatProof.STORED:
                self.status.last_stored_at = now
                log.info("stat_found", result=entry.result, rows=look.rows)
                return StateChange(entry.seq, "delivered")
            case StatProof.TOO_EARLY:
                due_at = now + min(max(self.miss_after_s - look.age_s, _SOON_S), _AGAIN_S)
                return StateChange(entry.seq, "uncertain", due_at, entry.problem)
            case StatProof.UNPROVEN:
                return self._unproven(entry, look, now)
            case StatProof.ABSENT:
                return await self._absent(entry, look, now)

    def _unproven(self, entry: OutboxEntry, look: LookUp, now: float) -> StateChange:
        """Keep a stat uncertain, with what the look is worth."""
        looks = look.look_ups + 1 if counts_as_evidence(look, self.miss_after_s) else look.look_ups
        return StateChange(entry.seq, "uncertain", now + _AGAIN_S, _UNPROVEN[look.completeness], look_ups=looks)

    async def _absent(self, entry: OutboxEntry, look: LookUp, now: float) -> StateChange:
        """Let a stat be posted again, if its region would keep it: one that was dropped looks like one that was
        lost."""
        if not await self.region_check.is_usable(afresh=True):
            return StateChange(entry.seq, "uncertain", now + _AGAIN_S, entry.problem, look_ups=look.look_ups)
        log.warning("stat_resent", result=entry.result, proof=look.completeness.value, age_s=round(look.age_s))
        why = f"sent again, since it was not found ({look.completeness.value}): {entry.problem}"
        return StateChange(
            entry.seq, "pending", problem=why, maybe_double=look.completeness is Completeness.NOTHING_TO_COMPARE
        )

    def _unreadable(self, entry: OutboxEntry, problem: str) -> StateChange:
        """Keep a stat that cannot be looked for; in the end do with it what is configured."""
        now = self.clock()
        age_s = now - (entry.last_sent_at or entry.created_at)
        if self.uncertain == "hold" or age_s < self.give_up_s + self.miss_after_s:
            return StateChange(entry.seq, "uncertain", now + _AGAIN_S, problem, look_ups=entry.look_ups)
        log.warning("resent_unseen", result=entry.result, problem="it cannot be read back and may be counted twice")
        return StateChange(entry.seq, "pending", problem=problem, maybe_double=True)
