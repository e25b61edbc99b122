"""Views: what the pages show, read in few and light queries however many results are kept."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from jobtester.store.database import Database
from jobtester.store.outbox import STATES, OutboxEntry

_RECENT = 12
_ENTRY = tuple(OutboxEntry.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class ResultPoint:
    """One result as a dot: when, how long, and how it went."""

    id: str
    started_at: float
    round_trip_s: float
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class CapabilityRow:
    """One capability of one orchestrator: its newest result and the ones before, oldest first."""

    orchestrator: str
    service_uri: str
    pipeline: str
    model: str
    warm: bool
    unscored_streak: int
    recent: tuple[ResultPoint, ...]

    @property
    def newest(self) -> ResultPoint:
        """Give the newest result."""
        return self.recent[-1]


@dataclass(frozen=True, slots=True)
class ExternalResultRow:
    """Another tester's result, its stat as JSON; `seq` is the key for paging, `state` how far its stat got.

    `state` is empty where the stat's way has been forgotten already.
    """

    seq: int
    id: str
    received_at: float
    source: str
    kind: str
    stat: str
    state: str


class Queries:
    """Reads for pages and the API."""

    def __init__(self, database: Database) -> None:
        """Work on an open database."""
        self._database = database

    async def matrix(self, address: str = "", *, recent: int = _RECENT) -> list[CapabilityRow]:
        """Give every capability with its newest results, of one orchestrator or of all."""

        def work(db: sqlite3.Connection) -> list[CapabilityRow]:
            where = "WHERE l.orchestrator = ?" if address else ""
            known = db.execute(
                f"SELECT l.orchestrator, l.service_uri, l.pipeline, l.model, r.warm, l.unscored_streak FROM latest l"
                f" JOIN results r ON r.seq = l.seq {where} ORDER BY 1, 2, 3, 4",
                (address,) if address else (),
            ).fetchall()
            return [
                CapabilityRow(
                    one, uri, pipeline, model, bool(warm), streak, _points(db, one, pipeline, model, uri, recent)
                )
                for one, uri, pipeline, model, warm, streak in known
            ]

        return [cell for cell in await self._database.read(work) if cell.recent]

    async def capabilities(
        self, *, after: str, limit: int, pipeline: str = "", recent: int = _RECENT
    ) -> list[CapabilityRow]:
        """Give the capabilities of at most `limit` orchestrators whose addresses come after one, in their order."""

        def work(db: sqlite3.Connection) -> list[CapabilityRow]:
            where = " AND l.pipeline = ?" if pipeline else ""
            wanted = (after, pipeline) if pipeline else (after,)
            known = db.execute(
                "SELECT l.orchestrator, l.service_uri, l.pipeline, l.model, r.warm, l.unscored_streak FROM latest l"
                f" JOIN results r ON r.seq = l.seq WHERE l.orchestrator > ?{where} AND l.orchestrator IN (SELECT DISTINCT"
                f" l.orchestrator FROM latest l JOIN results r ON r.seq = l.seq WHERE l.orchestrator > ?{where}"
                " ORDER BY 1 LIMIT ?) ORDER BY 1, 2, 3, 4",
                (*wanted, *wanted, limit),
            ).fetchall()
            return [
                CapabilityRow(one, uri, slug, model, bool(warm), streak, _points(db, one, slug, model, uri, recent))
                for one, uri, slug, model, warm, streak in known
            ]

        return [cell for cell in await self._database.read(work) if cell.recent]

    async def entries(self, states: tuple[str, ...], *, after: int, limit: int) -> list[OutboxEntry]:
        """Give outbox entries in these states (empty: all that are not delivered) after a number, oldest first."""
        wanted = states or tuple(state for state in STATES if state != "delivered")
        marks = ", ".join("?" * len(wanted))
        found = await self._database.read(
            lambda db: db.execute(
                f"SELECT {', '.join(_ENTRY)} FROM outbox WHERE state IN ({marks}) AND seq > ? ORDER BY seq LIMIT ?",
                (*wanted, after, limit),
            ).fetchall()
        )
        return [OutboxEntry(**dict(zip(_ENTRY, row, strict=True)) | {"maybe_double": bool(row[-1])}) for row in found]

    async def external_results(self, *, before: int | None, limit: int) -> list[ExternalResultRow]:
        """Give results of other testers, newest first, received before the one with seq `before`."""
        found = await self._database.read(
            lambda db: db.execute(
                "SELECT r.rowid, r.id, r.received_at, r.source, r.kind, r.stat, coalesce(o.state, '') FROM received r"
                " LEFT JOIN outbox o ON o.result = r.id WHERE r.rowid < ? ORDER BY r.rowid DESC LIMIT ?",
                (before if before is not None else 2**62, limit),
            ).fetchall()
        )
        return [ExternalResultRow(*row) for row in found]

    async def slowest(self, tick: str, limit: int = 10) -> list[tuple[str, str, str, str, float]]:
        """Give the slowest results of a tick as (id, address, pipeline, model, seconds)."""
        return await self._database.read(
            lambda db: db.execute(
                "SELECT id, orchestrator, pipeline, model, round_trip_s FROM results WHERE tick = ?"
                " ORDER BY round_trip_s DESC LIMIT ?",
                (tick, limit),
            ).fetchall()
        )

    async def timeline(self, tick: str, limit: int = 3000) -> list[tuple[str, str, str, float, float, str]]:
        """Give a tick's jobs as (id, gateway, pipeline, began, took, outcome), in their order."""
        return await self._database.read(
            lambda db: db.execute(
                "SELECT id, gateway, pipeline, started_at, round_trip_s, outcome FROM results WHERE tick = ?"
                " ORDER BY started_at LIMIT ?",
                (tick, limit),
            ).fetchall()
        )

    async def newest_external(self, limit: int = 50) -> list[tuple[float, str, str, str]]:
        """Give the newest results of other testers as (when, source, kind, stat as JSON)."""
        return await self._database.read(
            lambda db: db.execute(
                "SELECT received_at, source, kind, stat FROM received ORDER BY received_at DESC LIMIT ?", (limit,)
            ).fetchall()
        )


def _points(
    db: sqlite3.Connection, address: str, pipeline: str, model: str, uri: str, recent: int
) -> tuple[ResultPoint, ...]:
    found = db.execute(
        "SELECT id, started_at, round_trip_s, outcome, reason FROM results"
        " WHERE orchestrator = ? AND pipeline = ? AND model = ? AND service_uri = ? ORDER BY seq DESC LIMIT ?",
        (address, pipeline, model, uri, recent),
    ).fetchall()
    return tuple(ResultPoint(*row) for row in reversed(found))
