"""Read some delivered stats back, since an `ok` does not prove that anything was stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from jobtester.errors import LeaderboardError
from jobtester.leaderboard.proof import StatProof, conclude, counts_as_evidence
from jobtester.leaderboard.reconciliation import Reconciler
from jobtester.store.outbox import OutboxEntry

_EVERY_S = 30.0
_WITHIN_S = 6 * 3600.0
_ALL = 1_000_000  # more than any tick has
_MAX_MISSED = 40


@dataclass(slots=True)
class DeliveryAudit:
    """Read back `per_tick` stats of each tick, 0 for none.

    A lost stat is reported, and posted once more where its absence is believed by the same rule as a look-up's. It is
    read back until it is shown. A lost one is seldom alone, so from then on every stat is read back, until a round
    finds nothing more to read.
    """

    lookup: Reconciler
    per_tick: int
    clock: Callable[[], float] = time.time
    _done_at: float = float("-inf")
    _missed: dict[int, OutboxEntry] = field(default_factory=dict)
    _lost: set[int] = field(default_factory=set)
    _all: bool = False

    async def run_due(self) -> None:
        """Read back what is due, at most every half a minute."""
        now = self.clock()
        if not self.per_tick or 0 <= now - self._done_at < _EVERY_S or self.lookup.status.open_for_s:
            return
        self._done_at = now
        per_tick = _ALL if self._all else self.per_tick
        # The sample is drawn anew each time, but an absence takes several looks at the same stat. So a stat that was
        # missed once is asked for until it is shown or proven lost. Were it left to the draw, another stat of its tick
        # could be shown first, which ends the tick's sample, and the loss would never be noticed.
        missed = self._missed = {
            seq: entry for seq, entry in self._missed.items() if now - _settled(entry) <= _WITHIN_S
        }
        drawn = await self.lookup.outbox.due_audits(per_tick, older_s=self.lookup.miss_after_s, newer_s=_WITHIN_S)
        entries = list((missed | {entry.seq: entry for entry in drawn if entry.seq not in missed}).values())
        self._all = self._all and bool(entries or self._lost)
        for entry in entries:
            try:
                await self._read_back(entry)
            except LeaderboardError as error:
                self.lookup.status.on_read_back(str(error))
                return

    async def _read_back(self, entry: OutboxEntry) -> None:
        lookup = self.lookup
        look = await lookup.reader.look_up(entry, decisive=True)
        lookup.status.on_read_back("")
        proof = conclude(look, lookup.miss_after_s)
        if proof is StatProof.STORED:
            self._missed.pop(entry.seq, None)
            await lookup.outbox.record_audit(entry.seq)
            if entry.seq in self._lost:
                self._lost.discard(entry.seq)
                lookup.status.on_stats_restored(len(self._lost))
        elif proof is not StatProof.ABSENT:
            # No more than these are kept, so that a reading never takes long; the others can be drawn again.
            if entry.seq in self._missed or len(self._missed) < _MAX_MISSED:
                looks = look.look_ups + counts_as_evidence(look, lookup.miss_after_s)
                self._missed[entry.seq] = replace(entry, look_ups=looks)
        # The region first: without an `ai` row there the stat would only be dropped again.
        elif await lookup.region_check.is_usable(afresh=True):
            self._missed.pop(entry.seq, None)
            problem = "answered `ok`, but not stored; posted again"
            await lookup.outbox.record_audit(entry.seq, lost=problem)
            self._lost.add(entry.seq)
            self._all = True
            lookup.status.on_stat_lost(entry.result, problem, len(self._lost))


def _settled(entry: OutboxEntry) -> float:
    return entry.settled_at if entry.settled_at is not None else entry.created_at
