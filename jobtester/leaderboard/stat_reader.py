"""Look for one stat among the rows that the Leaderboard shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobtester.leaderboard.client import LeaderboardClient
from jobtester.store.outbox import Neighbors, Outbox, OutboxEntry

_NARROW_S = 300.0
_WIDE_S = (7200.0, 16 * 86_400.0)  # where the database's clock agrees neither with ours nor with the server's
_READS_WITHOUT_CONTROL = 3  # each over a connection of its own: a server's stale connections fail one read each


class Completeness(StrEnum):
    """How sure it is that an answer showed all rows that exist.

    The control row is an older stat of the same orchestrator, the witness any stored stat; see `reconciliation`.
    """

    CONTROL_SHOWN = "control shown"
    CONTROL_MISSING = "control missing"
    WITNESS_SHOWN = "witness shown"
    WITNESS_MISSING = "witness missing"
    CONTROL_GONE = "control gone, witness shown"
    NOTHING_TO_COMPARE = "nothing to compare"


@dataclass(frozen=True, slots=True)
class LookUp:
    """The result of one look-up. `rows` counts those that are the stat.

    `age_s` is the time in seconds from the last instant at which the stat can have been sent to the question,
    `later_stored_s` the time since a stat that was sent later was stored, None if none was. `duration_s` is how long
    the answers took. `look_ups` counts the earlier look-ups in a row that found neither the stat nor a fault in the
    answer.
    """

    rows: int
    completeness: Completeness
    age_s: float
    later_stored_s: float | None
    duration_s: float
    look_ups: int


@dataclass(frozen=True, slots=True)
class ExpectedRow:
    """What the row of one stat looks like. `job` is the id in its inputs, empty if there is none."""

    orchestrator: str
    pipeline: str
    model: str
    region: str
    timestamp: int
    round_trip_s: float
    job: str = ""

    @classmethod
    def from_entry(cls, entry: OutboxEntry) -> ExpectedRow:
        """Return the row that an outbox entry becomes. Other testers' stats carry no job of ours."""
        return cls(
            orchestrator=entry.orchestrator,
            pipeline=entry.pipeline,
            model=entry.model,
            region=entry.region,
            timestamp=entry.timestamp,
            round_trip_s=entry.round_trip_s,
            job="" if entry.result.startswith("received-") else entry.result,
        )

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Return True if a row is this stat: the same instant, and the same round trip to the last bit or our job."""
        if row.get("timestamp") != self.timestamp or row.get("region", self.region) != self.region:
            return False
        has_job = bool(self.job) and self.job in str(row.get("input_parameters", ""))
        return has_job or row.get("round_trip_time") == self.round_trip_s


@dataclass(slots=True)
class StatReader:
    """Ask for rows until they show a stat, or show that they would show it."""

    outbox: Outbox
    client: LeaderboardClient
    clock: Callable[[], float] = time.time

    async def look_up(self, entry: OutboxEntry, *, decisive: bool) -> LookUp:
        """Look for a stat. Raises LeaderboardError if nothing can be read.

        Only the minutes around the post are asked for at first, since whole days may exceed any size limit. A
        `decisive` look-up, after which the stat may be sent again, asks on if the narrow answer does not show the stat.
        """
        asked_at = self.clock()
        neighbors = await self.outbox.neighbors(entry)
        began = time.monotonic()
        rows = await self._rows(entry, _NARROW_S)
        completeness = Completeness.NOTHING_TO_COMPARE
        if decisive and not _count(rows, entry):
            completeness, rows = await self._rows_with_completeness(entry, neighbors)
        sent_at = entry.last_sent_at or entry.created_at
        return LookUp(
            rows=_count(rows, entry),
            completeness=completeness,
            age_s=asked_at - sent_at,
            later_stored_s=asked_at - neighbors.later_at if neighbors.later_at is not None else None,
            duration_s=time.monotonic() - began,
            look_ups=entry.look_ups,
        )

    async def _rows_with_completeness(
        self, entry: OutboxEntry, neighbors: Neighbors
    ) -> tuple[Completeness, list[Mapping[str, Any]]]:
        """Ask until one answer shows the stat or the control row; without a control row, compare several answers."""
        control, witness = neighbors.control, neighbors.witness
        if control is not None:
            completeness, rows = await self._rows_with_control(entry, control)
            if completeness is Completeness.CONTROL_SHOWN or _count(rows, entry):
                return completeness, rows
        # No control row, or it is gone: the witness before and after, and the same answer in between each time.
        witness_shown = witness is not None and await self._is_shown(witness)
        answers: set[frozenset[tuple[object, ...]]] = set()
        for _ in range(_READS_WITHOUT_CONTROL):
            rows = await self._rows(entry, _WIDE_S[-1], new_connection=True)
            if _count(rows, entry):
                break
            answers.add(frozenset((row.get("timestamp"), row.get("round_trip_time"), row["region"]) for row in rows))
        if witness is None:
            return Completeness.NOTHING_TO_COMPARE, rows
        # A list that ends early seldom ends at the same row each time.
        witness_shown = witness_shown and len(answers) == 1 and await self._is_shown(witness)
        if control is not None:
            return (Completeness.CONTROL_GONE if witness_shown else Completeness.CONTROL_MISSING), rows
        return (Completeness.WITNESS_SHOWN if witness_shown else Completeness.WITNESS_MISSING), rows

    async def _rows_with_control(
        self, entry: OutboxEntry, control: OutboxEntry
    ) -> tuple[Completeness, list[Mapping[str, Any]]]:
        """Ask for ever more time until an answer shows the stat or the control row."""
        rows: list[Mapping[str, Any]] = []
        is_same_capability = (control.pipeline, control.model) == (entry.pipeline, entry.model)
        for slack_s in (_NARROW_S, *_WIDE_S):
            rows = await self._rows(
                entry,
                slack_s,
                first=min(_first_sent(entry), _first_sent(control)),
                every_model=not is_same_capability,
                new_connection=True,
            )
            if _count(rows, entry):
                break
            if _count(rows, control):
                return Completeness.CONTROL_SHOWN, rows
        return Completeness.CONTROL_MISSING, rows

    async def _is_shown(self, entry: OutboxEntry) -> bool:
        for slack_s in (_NARROW_S, *_WIDE_S):
            if _count(await self._rows(entry, slack_s, new_connection=True), entry):
                return True
        return False

    async def _rows(
        self,
        entry: OutboxEntry,
        slack_s: float,
        *,
        first: float | None = None,
        every_model: bool = False,
        new_connection: bool = False,
    ) -> list[Mapping[str, Any]]:
        """Return the rows stored from `slack_s` before `first` (default: the first sending) on, by the server's clock.

        An answer may show that the clocks are further apart than was thought; then the question is asked again.
        """
        since = (_first_sent(entry) if first is None else first) - slack_s
        for _ in range(2):
            server_since = self.client.server_time(since)
            if slack_s == _WIDE_S[-1]:
                server_since = min(server_since, since)
            rows = await self.client.get_rows(
                entry.orchestrator,
                pipeline="" if every_model else entry.pipeline,
                model="" if every_model else entry.model,
                since=max(0.0, server_since),
                new_connection=new_connection,
                job_type="ai" if entry.model else "transcoding",
            )
            if _count(rows, entry) or self.client.server_time(since) >= server_since - 60:
                break
        return rows


def _first_sent(entry: OutboxEntry) -> float:
    return entry.first_sent_at or entry.last_sent_at or entry.created_at


def _count(rows: list[Mapping[str, Any]], entry: OutboxEntry) -> int:
    expected = ExpectedRow.from_entry(entry)
    return sum(expected.matches(row) for row in rows)
