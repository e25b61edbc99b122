"""Read some delivered stats back, since an `ok` does not prove that anything was stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from jobtester.errors import LeaderboardError
from jobtester.leaderboard.options import OptionsHolder
from jobtester.leaderboard.reconciliation import (
    UNPROVEN_PROBLEMS,
    StatProof,
    conclude,
    count_same_evidence,
    counts_as_evidence,
)
from jobtester.leaderboard.region_check import RegionCheck
from jobtester.leaderboard.stat_reader import StatReader
from jobtester.leaderboard.status import LeaderboardStatus
from jobtester.store.outbox import Outbox, OutboxEntry

_INTERVAL_S = 30.0
_MAX_AGE_S = 6 * 3600.0
_UNLIMITED = 1_000_000  # more stats than any tick has
_MAX_MISSED = 40


@dataclass(slots=True)
class DeliveryAudit:
    """Read back a few stats of each tick.

    A lost stat is reported, and posted once more where its absence is believed by the same rule as a look-up's. It is
    read back until it is shown. A lost stat is seldom alone, so from then on every stat is read back, until a round
    finds nothing more to read.
    """

    outbox: Outbox
    reader: StatReader
    region_check: RegionCheck
    status: LeaderboardStatus
    options: OptionsHolder
    clock: Callable[[], float] = time.time
    _last_run_at: float = float("-inf")
    _missed: dict[int, OutboxEntry] = field(default_factory=dict)
    _lost: set[int] = field(default_factory=set)
    _reads_all: bool = False

    async def run_due(self) -> None:
        """Read back what is due, at most every half a minute."""
        now, options = self.clock(), self.options.current
        if not options.audit_per_tick or 0 <= now - self._last_run_at < _INTERVAL_S or self.status.open_for_s:
            return
        self._last_run_at = now
        per_tick = _UNLIMITED if self._reads_all else options.audit_per_tick
        # A new sample is drawn each time, but an absence takes several look-ups of the same stat. So a stat that was
        # missed once is looked up until it is shown or proven lost. Were it left to the draw, another stat of its tick
        # could be shown first, which ends the tick's sample, and the loss would never be noticed.
        self._missed = {
            seq: entry for seq, entry in self._missed.items() if now - (entry.settled_at or now) <= _MAX_AGE_S
        }
        sample = await self.outbox.due_audits(per_tick, older_s=options.miss_after_s, newer_s=_MAX_AGE_S)
        entries = [*self._missed.values(), *(entry for entry in sample if entry.seq not in self._missed)]
        self._reads_all = self._reads_all and bool(entries or self._lost)
        for entry in entries:
            try:
                await self._read_back(entry)
            except LeaderboardError as error:
                self.status.on_read(str(error))
                return

    async def _read_back(self, entry: OutboxEntry) -> None:
        miss_after_s = self.options.current.miss_after_s
        look_up = count_same_evidence(await self.reader.look_up(entry, decisive=True), entry)
        self.status.on_read("")
        proof = conclude(look_up, miss_after_s)
        if proof is StatProof.STORED:
            self._missed.pop(entry.seq, None)
            await self.outbox.record_audit(entry.seq)
            if entry.seq in self._lost:
                self._lost.discard(entry.seq)
                self.status.on_stat_restored(len(self._lost))
        # The region first: without an `ai` row there the stat would only be dropped again.
        elif proof is StatProof.ABSENT and await self.region_check.is_usable(refresh=True):
            self._missed.pop(entry.seq, None)
            problem = "answered `ok`, but not stored; posted again"
            await self.outbox.record_audit(entry.seq, lost=problem)
            self._lost.add(entry.seq)
            self._reads_all = True
            self.status.on_stat_lost(entry.result, problem, len(self._lost))
        # The number is limited so that a round never takes long; the others can be drawn again.
        elif entry.seq in self._missed or len(self._missed) < _MAX_MISSED:
            look_ups = look_up.look_ups + counts_as_evidence(look_up, miss_after_s)
            problem = UNPROVEN_PROBLEMS.get(look_up.completeness, "")
            self._missed[entry.seq] = replace(entry, look_ups=look_ups, problem=problem)
