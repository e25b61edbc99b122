"""The look-up: finds out whether a stat whose post had no sure answer was stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from jobtester.errors import LeaderboardError
from jobtester.leaderboard.client import Client, Wanted
from jobtester.leaderboard.regions import Gate
from jobtester.leaderboard.standing import Standing
from jobtester.store.outbox import Entry, Move, Outbox

log = structlog.get_logger()

_AT_ONCE = 40
_AGAIN_S = 15.0
_SOON_S = 1.0
_CLOCK_SLACK_S = 600.0
_DAY_S = 86_400.0


@dataclass(slots=True)
class Lookup:
    """Looks for uncertain stats among the rows that the Leaderboard gives out.

    `miss_after_s`: a stat that is not found is believed lost only this long after it was sent, since the server may
    still be storing it. Where nothing can be read back for `give_up_s` more, `uncertain` says what to do.
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

    async def round(self) -> bool:
        """Look for what is due; tell whether there was anything."""
        if self.standing.shut_for_s:
            return False
        entries = await self.outbox.to_look_up(_AT_ONCE)
        if not entries:
            return False
        slots = asyncio.Semaphore(self.parallel)
        moves = await asyncio.gather(*(self._look(entry, slots) for entry in entries))
        await self.outbox.settle(moves)
        return True

    async def _look(self, entry: Entry, slots: asyncio.Semaphore) -> Move:
        """Look for one stat and say where it belongs now."""
        sent_at = entry.last_sent_at or entry.created_at
        async with slots:
            age_s = self.clock() - sent_at  # what is answered may be as old as the question
            slack_s = _CLOCK_SLACK_S if age_s < self.miss_after_s else _DAY_S  # before a miss is believed
            try:
                found = await self.client.count(
                    _wanted(entry),
                    since=(entry.first_sent_at or sent_at) - slack_s,
                    until=self.clock() + _DAY_S,
                )
                self.standing.read_back("")
            except LeaderboardError as error:
                self.standing.read_back(str(error))
                return self._unreadable(entry, str(error))
        now = self.clock()
        if found:
            self.standing.last_stored_at = now
            log.info("stat_found", result=entry.result, rows=found)
            return Move(entry.seq, "delivered")
        if age_s < self.miss_after_s:
            due_at = now + min(max(self.miss_after_s - age_s, _SOON_S), _AGAIN_S)
            return Move(entry.seq, "uncertain", due_at, entry.problem)
        if not await self.gate.usable(afresh=True):
            return Move(entry.seq, "uncertain", now + _AGAIN_S, entry.problem)
        return Move(entry.seq, "pending", problem=f"sent again, since it was not found: {entry.problem}")

    def _unreadable(self, entry: Entry, problem: str) -> Move:
        """Keep a stat that cannot be looked for; in the end do with it what is configured."""
        now = self.clock()
        age_s = now - (entry.last_sent_at or entry.created_at)
        if self.uncertain == "hold" or age_s < self.give_up_s + self.miss_after_s:
            return Move(entry.seq, "uncertain", now + _AGAIN_S, problem)
        log.warning("resent_unseen", result=entry.result, problem="it cannot be read back and may be counted twice")
        return Move(entry.seq, "pending", problem=problem, maybe_double=True)


def _wanted(entry: Entry) -> Wanted:
    return Wanted(
        orchestrator=entry.address,
        pipeline=entry.pipeline,
        model=entry.model,
        region=entry.region,
        timestamp=entry.timestamp,
        round_trip_s=entry.round_trip_s,
        job="" if entry.result.startswith("received-") else entry.result,
    )
