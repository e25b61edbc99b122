"""Find out whether a stat was stored whose post had no sure answer.

A row that is shown is stored: a hit is final. The reverse does not hold: `200 {}` also comes where the query failed,
and a list may end early. So three things are checked before a stat counts as absent:

1. Was the answer complete? Rows come newest first. If it shows a *control* row, which was stored before the stat was
   first sent, then everything newer is in it as well.
2. Can the stat still arrive? A statement may wait for a lock long after the server that sent it died. PostgreSQL grants
   a lock in the order in which it was asked for, so a stat that was sent later and is stored shows that none sent
   earlier still waits. Without one, only a longer time helps.
3. Without a control row nothing is proved. Then the evidence is weighed: the answer was the same several times, and a
   *witness*, any stored stat, was shown before and after it; all that in two look-ups, some seconds apart. Where the
   control row is gone, as from a database that was re-created, it takes four.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog

from jobtester.crash_boundary import CrashBoundary
from jobtester.errors import LeaderboardError
from jobtester.leaderboard.options import OptionsHolder
from jobtester.leaderboard.region_check import RegionCheck
from jobtester.leaderboard.stat_reader import Completeness, LookUp, StatReader
from jobtester.leaderboard.status import LeaderboardStatus
from jobtester.store.outbox import Outbox, OutboxEntry, StateChange

log = structlog.get_logger()

LATER_SETTLED_S = 5.0  # between the release of a lock and the commits of those that waited for it
LOOK_UPS_WITHOUT_CONTROL = 2
LOOK_UPS_WITH_CONTROL_GONE = 4  # an answer that ends early is likelier than a re-created database
# A statement can run on after its server has died: it is orphaned. In an experiment one outlived its server by 200 s.
# So where a miss counts after 90 s it is waited out for 300 s, and longer where servers take longer.
ORPHAN_FACTOR = 10 / 3
SLOW_ANSWER_S = 5.0  # well below the server's time limit for queries, 20 s by default: an empty answer may be a failure
_BATCH = 40
_NEXT_LOOK_UP_S = 15.0
_MIN_NEXT_LOOK_UP_S = 1.0
_OUTAGE_PAUSE_S = 5.0
UNPROVEN_PROBLEMS = {
    Completeness.CONTROL_MISSING: "the answer lacks an older stat that was stored, so it may lack this one too",
    Completeness.WITNESS_MISSING: "the answers do not show a stat that was stored, so they prove nothing",
    Completeness.CONTROL_GONE: "not found, nor is an older stat that was stored; it is looked for again",
    Completeness.WITNESS_SHOWN: "not found, with nothing in the same answer to compare with; it is looked for again",
    Completeness.NOTHING_TO_COMPARE: "not found, but no stat was ever stored that would show whether answers are whole",
}


class StatProof(StrEnum):
    """What a look-up proves about a stat."""

    STORED = "stored"
    ABSENT = "absent"
    TOO_EARLY = "too early"
    UNPROVEN = "unproven"


def conclude(look_up: LookUp, miss_after_s: float, *, accept_without_comparison: bool = False) -> StatProof:
    """Return what a look-up proves. `miss_after_s`: how long the server itself may take to store a stat, in seconds.

    `accept_without_comparison` lets a stat count as absent where no stat was ever stored with which to compare.
    """
    if look_up.rows:
        return StatProof.STORED
    # First the time: while the stat can still arrive, even a complete answer without it proves nothing.
    orphan_s = _orphan_s(miss_after_s)
    if look_up.age_s < miss_after_s:
        return StatProof.TOO_EARLY
    was_overtaken = look_up.later_stored_s is not None and look_up.later_stored_s >= LATER_SETTLED_S
    if not was_overtaken and look_up.age_s < orphan_s:
        return StatProof.TOO_EARLY
    if look_up.completeness is Completeness.CONTROL_SHOWN:
        return StatProof.ABSENT
    # Without a control row in the answer: evidence instead of proof, from quick answers alone and more than once.
    has_evidence = look_up.completeness in (Completeness.WITNESS_SHOWN, Completeness.CONTROL_GONE) or (
        accept_without_comparison and look_up.completeness is Completeness.NOTHING_TO_COMPARE
    )
    if not has_evidence or look_up.duration_s >= SLOW_ANSWER_S:
        return StatProof.UNPROVEN
    if look_up.age_s < orphan_s:
        return StatProof.TOO_EARLY
    is_control_gone = look_up.completeness is Completeness.CONTROL_GONE
    needed = LOOK_UPS_WITH_CONTROL_GONE if is_control_gone else LOOK_UPS_WITHOUT_CONTROL
    return StatProof.ABSENT if look_up.look_ups + 1 >= needed else StatProof.UNPROVEN


def counts_as_evidence(look_up: LookUp, miss_after_s: float) -> bool:
    """Return True if a look-up is one of those that are needed where there is no control row."""
    return (
        look_up.completeness in (Completeness.WITNESS_SHOWN, Completeness.CONTROL_GONE, Completeness.NOTHING_TO_COMPARE)
        and look_up.duration_s < SLOW_ANSWER_S
        and look_up.age_s >= _orphan_s(miss_after_s)
    )


def count_same_evidence(look_up: LookUp, entry: OutboxEntry) -> LookUp:
    """Return a look-up that counts only earlier ones of its own kind.

    Two answers beside a witness are evidence, and four without the control row; some of each are neither. The entry's
    problem says of which kind its last look-up was.
    """
    is_same = entry.problem == UNPROVEN_PROBLEMS.get(look_up.completeness)
    return replace(look_up, look_ups=entry.look_ups if is_same else 0)


def wait_until_settled(look_up: LookUp, miss_after_s: float) -> float:
    """Return how many seconds to wait with the next look-up of a stat that can still arrive.

    Until a miss counts only a hit can settle the stat, and each look-up costs the server a query. So the next one waits
    until then, but at most a quarter of a minute: the sooner a hit, the fewer stats are uncertain.
    """
    if look_up.age_s < miss_after_s:
        remaining_s = miss_after_s - look_up.age_s
    elif look_up.later_stored_s is not None and look_up.later_stored_s < LATER_SETTLED_S:
        remaining_s = LATER_SETTLED_S - look_up.later_stored_s
    else:
        remaining_s = _orphan_s(miss_after_s) - look_up.age_s
    return min(max(remaining_s, _MIN_NEXT_LOOK_UP_S), _NEXT_LOOK_UP_S)


def _orphan_s(miss_after_s: float) -> float:
    """Return the age in seconds at which not even an orphaned statement can still store a stat."""
    return miss_after_s * ORPHAN_FACTOR


@dataclass(slots=True)
class Reconciler:
    """Look up uncertain stats, and move each to where it belongs."""

    outbox: Outbox
    reader: StatReader
    region_check: RegionCheck
    status: LeaderboardStatus
    options: OptionsHolder
    clock: Callable[[], float] = time.time
    crashes: CrashBoundary = CrashBoundary()  # noqa: RUF009 - an immutable value
    _resting_until: float = float("-inf")

    @property
    def resting_s(self) -> float:
        """Return for how many seconds nothing is looked up because that just failed in an outage, at least 0."""
        return max(0.0, self._resting_until - self.status.monotonic())

    async def run_due(self) -> bool:
        """Look up the stats that are due; return True if there were any."""
        # In an outage one at a time, with pauses. It opens no breaker: where reading fails, posting may work.
        limit = self.status.allowed_sends(_BATCH)
        entries = await self.outbox.due_look_ups(limit) if limit and not self.resting_s else []
        if not entries:
            return False
        slots = asyncio.Semaphore(self.options.current.parallel)
        changes = await asyncio.gather(*(self._look_up_safely(entry, slots) for entry in entries))
        await self.outbox.apply(changes)
        return True

    async def _look_up_safely(self, entry: OutboxEntry, slots: asyncio.Semaphore) -> StateChange:
        with self.crashes.unit("lookup", result=entry.result) as crash:
            async with slots:
                return await self._look_up(entry)
        due_at = self.clock() + _NEXT_LOOK_UP_S
        return StateChange(entry.seq, "uncertain", due_at, crash.message, look_ups=entry.look_ups)

    async def _look_up(self, entry: OutboxEntry) -> StateChange:
        """Look for one stat and return where it belongs now."""
        options = self.options.current
        age_s = self.clock() - (entry.last_sent_at or entry.created_at)
        try:
            look_up = await self.reader.look_up(entry, decisive=age_s >= options.miss_after_s)
            look_up = count_same_evidence(look_up, entry)
            self.status.on_read("")
        except LeaderboardError as error:
            self.status.on_read(str(error))
            if self.status.is_failing:
                self._resting_until = self.status.monotonic() + _OUTAGE_PAUSE_S
            if options.uncertain == "hold" or age_s < options.give_up_reading_s + options.miss_after_s:
                due_at = self.clock() + _NEXT_LOOK_UP_S
                return StateChange(entry.seq, "uncertain", due_at, str(error), look_ups=entry.look_ups)
            log.warning("stat_resent", result=entry.result, proof="none, rows cannot be read", age_s=round(age_s))
            return StateChange(entry.seq, "pending", problem=str(error), maybe_double=True)
        now = self.clock()
        match conclude(look_up, options.miss_after_s, accept_without_comparison=options.uncertain == "resend"):
            case StatProof.STORED:
                log.info("stat_found", result=entry.result, rows=look_up.rows)
                return StateChange(entry.seq, "delivered")
            case StatProof.TOO_EARLY:
                wait_s = wait_until_settled(look_up, options.miss_after_s)
                return StateChange(entry.seq, "uncertain", now + wait_s, entry.problem, look_ups=look_up.look_ups)
            case StatProof.UNPROVEN:
                look_ups = look_up.look_ups + counts_as_evidence(look_up, options.miss_after_s)
                return StateChange(
                    entry.seq,
                    "uncertain",
                    now + _NEXT_LOOK_UP_S,
                    UNPROVEN_PROBLEMS[look_up.completeness],
                    look_ups=look_ups,
                )
            case StatProof.ABSENT:
                return await self._absent(entry, look_up)

    async def _absent(self, entry: OutboxEntry, look_up: LookUp) -> StateChange:
        """Return an absent stat to those that are posted, if its region keeps it: a dropped one looks just like it."""
        if not await self.region_check.is_usable(refresh=True):
            due_at = self.clock() + _NEXT_LOOK_UP_S
            return StateChange(entry.seq, "uncertain", due_at, entry.problem, look_ups=look_up.look_ups)
        proof = look_up.completeness.value
        log.warning("stat_resent", result=entry.result, proof=proof, age_s=round(look_up.age_s))
        problem = f"sent again, since it was not found ({proof}): {entry.problem}"
        maybe_double = look_up.completeness is Completeness.NOTHING_TO_COMPARE
        return StateChange(entry.seq, "pending", problem=problem, maybe_double=maybe_double)
