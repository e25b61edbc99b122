"""The look-up: finds out whether a stat whose post had no sure answer was stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog

from jobtester.crashes import CrashBoundary
from jobtester.errors import LeaderboardError
from jobtester.leaderboard.client import Client
from jobtester.leaderboard.proof import Completeness, Look, Proof, conclude, is_weighable
from jobtester.leaderboard.reading import Reader
from jobtester.leaderboard.regions import Gate
from jobtester.leaderboard.standing import Standing
from jobtester.store.outbox import Entry, Move, Outbox

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
class Lookup:
    """Looks for uncertain stats among the rows that the Leaderboard gives out.

    `miss_after_s`: a stat that is not found is believed lost only this long after it was sent, since the server may
    still be storing it. Where nothing can be read back for `give_up_s` more, or nothing that is read proves anything,
    `uncertain` says what to do.
    """

    outbox: Outbox
    client: Client
    gate: Gate
    standing: Standing
    uncertain: Literal["resend", "hold"]
    parallel: int
    miss_after_s: float
    give_up_s: float
    clock: Callable[[], float] = time.time
    crashes: CrashBoundary = CrashBoundary()  # noqa: RUF009 - an immutable value
    reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the reader."""
        self.reader = Reader(self.outbox, self.client, self.clock)

    async def round(self) -> bool:
        """Look for what is due; tell whether there was anything."""
        if self.standing.shut_for_s:
            return False
        entries = await self.outbox.to_look_up(_AT_ONCE)
        if not entries:
            return False
        slots = asyncio.Semaphore(self.parallel)
        moves = await asyncio.gather(*(self._look_safely(entry, slots) for entry in entries))
        await self.outbox.settle(moves)
        return True

    async def _look_safely(self, entry: Entry, slots: asyncio.Semaphore) -> Move:
        with self.crashes.unit("lookup", result=entry.result) as crash:
            return await self._look(entry, slots)
        return Move(entry.seq, "uncertain", self.clock() + _AGAIN_S, crash.message)

    async def _look(self, entry: Entry, slots: asyncio.Semaphore) -> Move:
        """Look for one stat and say where it belongs now."""
        async with slots:
            age_s = self.clock() - (entry.last_sent_at or entry.created_at)
            try:
                look = await self.reader.look(entry, decisive=age_s >= self.miss_after_s)
                self.standing.read_back("")
            except LeaderboardError as error:
                self.standing.read_back(str(error))
                return self._unreadable(entry, str(error))
        now = self.clock()
        match conclude(look, self.miss_after_s, guess=self.uncertain == "resend"):
            case Proof.STORED:
                self.standing.last_stored_at = now
                log.info("stat_found", result=entry.result, rows=look.rows)
                return Move(entry.seq, "delivered")
            case Proof.TOO_EARLY:
                due_at = now + min(max(self.miss_after_s - look.age_s, _SOON_S), _AGAIN_S)
                return Move(entry.seq, "uncertain", due_at, entry.problem)
            case Proof.UNPROVEN:
                return self._unproven(entry, look, now)
            case Proof.ABSENT:
                return await self._absent(entry, look, now)

    def _unproven(self, entry: Entry, look: Look, now: float) -> Move:
        """Keep a stat uncertain, with what the look is worth."""
        looks = look.looks + 1 if is_weighable(look, self.miss_after_s) else look.looks
        return Move(entry.seq, "uncertain", now + _AGAIN_S, _UNPROVEN[look.completeness], looks=looks)

    async def _absent(self, entry: Entry, look: Look, now: float) -> Move:
        """Let a stat be posted again, if its region would keep it: one that was dropped looks like one that was
        lost."""
        if not await self.gate.usable(afresh=True):
            return Move(entry.seq, "uncertain", now + _AGAIN_S, entry.problem, looks=look.looks)
        log.warning("stat_resent", result=entry.result, proof=look.completeness.value, age_s=round(look.age_s))
        why = f"sent again, since it was not found ({look.completeness.value}): {entry.problem}"
        return Move(
            entry.seq, "pending", problem=why, maybe_double=look.completeness is Completeness.NOTHING_TO_COMPARE
        )

    def _unreadable(self, entry: Entry, problem: str) -> Move:
        """Keep a stat that cannot be looked for; in the end do with it what is configured."""
        now = self.clock()
        age_s = now - (entry.last_sent_at or entry.created_at)
        if self.uncertain == "hold" or age_s < self.give_up_s + self.miss_after_s:
            return Move(entry.seq, "uncertain", now + _AGAIN_S, problem, looks=entry.looks)
        log.warning("resent_unseen", result=entry.result, problem="it cannot be read back and may be counted twice")
        return Move(entry.seq, "pending", problem=problem, maybe_double=True)
