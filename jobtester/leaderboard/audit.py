"""The audit: reads some delivered stats back, since an `ok` does not prove that anything was stored."""

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


@dataclass(slots=True)
class DeliveryAudit:
    """Reads back `per_tick` stats of each tick, 0 for none.

    A lost one is reported, and posted once more where its absence is believed by the same rule as a look-up's. It is
    read back until it is shown. A lost one is seldom alone, so from then on every stat is read back, until a round
    finds nothing more to read.
    """

    lookup: Reconciler
    per_tick: int
    clock: Callable[[], float] = time.time
    _done_at: float = float("-inf")
    _looks: dict[int, int] = field(default_factory=dict)
    _lost: set[int] = field(default_factory=set)
    _all: bool = False

    async def run_due(self) -> None:
        """Read back what is due, at most every half a minute."""
        now = self.clock()
        if not self.per_tick or 0 <= now - self._done_at < _EVERY_S or self.lookup.status.open_for_s:
            return
        self._done_at = now
        outbox = self.lookup.outbox
        per_tick = _ALL if self._all else self.per_tick
        entries = await outbox.due_audits(per_tick, older_s=self.lookup.miss_after_s, newer_s=_WITHIN_S)
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
        look = replace(look, look_ups=self._looks.pop(entry.seq, 0))
        lookup.status.on_read_back("")
        match conclude(look, lookup.miss_after_s):
            case StatProof.STORED:
                await lookup.outbox.record_audit(entry.seq)
                if entry.seq in self._lost:
                    self._lost.discard(entry.seq)
                    lookup.status.on_stats_restored(len(self._lost))
            case StatProof.ABSENT:
                # The region first: without an `ai` row there it would only be dropped again.
                if await lookup.region_check.is_usable(afresh=True):
                    why = "answered `ok`, but not stored; posted again"
                    await lookup.outbox.record_audit(entry.seq, lost=why)
                    self._lost.add(entry.seq)
                    self._all = True
                    lookup.status.on_stat_lost(entry.result, why, len(self._lost))
            case StatProof.TOO_EARLY | StatProof.UNPROVEN:
                self._looks[entry.seq] = look.look_ups + counts_as_evidence(look, lookup.miss_after_s)  # asked again
