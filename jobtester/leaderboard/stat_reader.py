"""Reading one stat back: the questions that are asked, and what their answers show."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jobtester.leaderboard.client import ExpectedRow, LeaderboardClient
from jobtester.leaderboard.proof import Completeness, LookUp
from jobtester.store.outbox import Neighbors, Outbox, OutboxEntry

_NARROW_S = 300.0
_WIDE_S = (7200.0, 16 * 86_400.0)  # where the database's clock agrees neither with ours nor with the server's
_READS_WITHOUT_CONTROL = 3  # each over a connection of its own: a server's stale connections fail one read each


@dataclass(slots=True)
class StatReader:
    """Looks for a stat among the rows that the Leaderboard shows."""

    outbox: Outbox
    client: LeaderboardClient
    clock: Callable[[], float] = time.time

    async def look_up(self, entry: OutboxEntry, *, decisive: bool) -> LookUp:
        """Look for a stat; raises LeaderboardError if nothing can be read.

        Only the minutes around the post are asked for at first, since whole days may be over any size limit. A
        `decisive` look, after which the stat may be sent again, asks on where the narrow answer does not show the
        control row.
        """
        asked_at = self.clock()
        neighbors = await self.outbox.neighbors(entry)
        began = time.monotonic()
        rows = await self._rows(entry, _NARROW_S)
        completeness = Completeness.NOTHING_TO_COMPARE
        if decisive and not _count(rows, entry):
            completeness, rows = await self._compared(entry, neighbors)
        sent_at = entry.last_sent_at or entry.created_at
        return LookUp(
            rows=_count(rows, entry),
            completeness=completeness,
            age_s=asked_at - sent_at,
            later_s=asked_at - neighbors.later_at if neighbors.later_at is not None else None,
            took_s=time.monotonic() - began,
            look_ups=entry.look_ups,
        )

    async def _compared(self, entry: OutboxEntry, neighbors: Neighbors) -> tuple[Completeness, list[Mapping[str, Any]]]:
        """Ask until one answer shows the stat or the control row; without a control row, between two of the witness."""
        control, witness = neighbors.control, neighbors.witness
        first = min(_sent(entry), _sent(control)) if control is not None else _sent(entry)
        same = control is None or (control.pipeline, control.model) == (entry.pipeline, entry.model)
        if control is not None:
            for slack_s in (_NARROW_S, *_WIDE_S):
                rows = await self._rows(entry, slack_s, first=first, every_model=not same, fresh=True)
                if _count(rows, entry):
                    break
                if _count(rows, control):
                    return Completeness.CONTROL_SHOWN, rows
            if _count(rows, entry):
                return Completeness.CONTROL_MISSING, rows
        shown = witness is not None and await self._is_shown(witness)
        answers: set[frozenset[tuple[object, ...]]] = set()
        for _ in range(_READS_WITHOUT_CONTROL):
            rows = await self._rows(entry, _WIDE_S[-1], fresh=True)
            if _count(rows, entry):
                break
            answers.add(frozenset((row.get("timestamp"), row.get("round_trip_time"), row["region"]) for row in rows))
        if witness is None:
            return Completeness.NOTHING_TO_COMPARE, rows
        # A list that ends early seldom ends at the same row each time.
        shown = shown and len(answers) == 1 and await self._is_shown(witness)
        if control is not None:
            return (Completeness.CONTROL_GONE if shown else Completeness.CONTROL_MISSING), rows
        return (Completeness.WITNESS_SHOWN if shown else Completeness.WITNESS_MISSING), rows

    async def _is_shown(self, entry: OutboxEntry) -> bool:
        for slack_s in (_NARROW_S, *_WIDE_S):
            if _count(await self._rows(entry, slack_s, fresh=True), entry):
                return True
        return False

    async def _rows(
        self,
        entry: OutboxEntry,
        slack_s: float,
        *,
        first: float | None = None,
        every_model: bool = False,
        fresh: bool = False,
    ) -> list[Mapping[str, Any]]:
        """Return the rows stored from `slack_s` before the first sending on, by the server's clock.

        Where an answer shows that the clocks are further apart than was thought, the question is put again.
        """
        ours = (_sent(entry) if first is None else first) - slack_s
        for _ in range(2):
            theirs = self.client.server_time(ours)
            since = min(theirs, ours) if slack_s == _WIDE_S[-1] else theirs
            rows = await self.client.get_rows(
                entry.orchestrator,
                pipeline="" if every_model else entry.pipeline,
                model="" if every_model else entry.model,
                since=max(0.0, since),
                fresh=fresh,
                job_type="ai" if entry.model else "transcoding",
            )
            if _count(rows, entry) or self.client.server_time(ours) >= since - 60:
                break
        return rows


def _sent(entry: OutboxEntry) -> float:
    return entry.first_sent_at or entry.last_sent_at or entry.created_at


def _count(rows: list[Mapping[str, Any]], entry: OutboxEntry) -> int:
    wanted = ExpectedRow(
        orchestrator=entry.orchestrator,
        pipeline=entry.pipeline,
        model=entry.model,
        region=entry.region,
        timestamp=entry.timestamp,
        round_trip_s=entry.round_trip_s,
        job="" if entry.result.startswith("received-") else entry.result,
    )
    return sum(wanted.matches(row) for row in rows)
