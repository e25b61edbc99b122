"""Read results for pages, the API and commands, with few and fast queries."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobtester.store.database import Database, select_statement
from jobtester.store.results import RESULT_COLUMNS, ResultRow

_RECENT = 12
_MAX_CACHED = 20_000
# The filters, those with the fewest rows per value first.
_BY_SELECTIVITY = ("tick", "orchestrator", "model", "reason", "outcome", "pipeline", "service_uri")
_COLUMNS_OF_INDEX = {"orchestrator": ("orchestrator", "pipeline", "model")}  # others have one and `seq`

_SELECT_RESULTS = select_statement([f"r.{name}" for name in RESULT_COLUMNS], "results r")
_SELECT_LATEST = (
    select_statement(["l.unscored_streak", *(f"r.{name}" for name in RESULT_COLUMNS)], "results r")
    + " JOIN latest l ON l.seq = r.seq ORDER BY r.orchestrator, r.service_uri, r.pipeline, r.model, r.kind"
)
_SELECT_TARGETS = "SELECT DISTINCT orchestrator, service_uri FROM latest"
_SELECT_MATRIX = """
    SELECT l.orchestrator, l.service_uri, l.pipeline, l.model, l.kind, r.warm, l.unscored_streak, l.seq
    FROM latest l JOIN results r ON r.seq = l.seq
"""
_SELECT_WHOLE_MATRIX = f"{_SELECT_MATRIX} ORDER BY 1, 2, 3, 4, 5"
_SELECT_ONE_ORCHESTRATOR = f"{_SELECT_MATRIX} WHERE l.orchestrator = :address ORDER BY 1, 2, 3, 4, 5"
_SELECT_SOME_ORCHESTRATORS = """
    SELECT l.orchestrator, l.service_uri, l.pipeline, l.model, l.kind, r.warm, l.unscored_streak, l.seq
    FROM latest l JOIN results r ON r.seq = l.seq
    WHERE :pipeline IN ('', l.pipeline) AND l.orchestrator IN (
        SELECT DISTINCT l.orchestrator FROM latest l JOIN results r ON r.seq = l.seq
        WHERE l.orchestrator > :after AND :pipeline IN ('', l.pipeline) ORDER BY 1 LIMIT :limit
    )
    ORDER BY 1, 2, 3, 4, 5
"""
_SELECT_POINTS = """
    SELECT id, started_at, round_trip_s, outcome, reason FROM results
    WHERE orchestrator = ? AND service_uri = ? AND pipeline = ? AND model = ? AND kind = ? AND seq >= ?
    ORDER BY seq DESC LIMIT ?
"""
_SELECT_POINT = "SELECT id, started_at, round_trip_s, outcome, reason FROM results WHERE seq = ?"
_SELECT_EXTERNAL = """
    SELECT r.rowid, r.id, r.received_at, r.source, r.kind, r.stat, coalesce(o.state, '')
    FROM received r LEFT JOIN outbox o ON o.result = r.id WHERE r.rowid < ? ORDER BY r.rowid DESC LIMIT ?
"""
_SELECT_NEWEST_EXTERNAL = "SELECT received_at, source, kind, stat FROM received ORDER BY received_at DESC LIMIT ?"
_SELECT_SLOWEST = """
    SELECT id, orchestrator, pipeline, model, round_trip_s FROM results WHERE tick = ?
    ORDER BY round_trip_s DESC LIMIT ?
"""
_SELECT_TIMELINE = """
    SELECT id, gateway, pipeline, started_at, round_trip_s, outcome FROM results WHERE tick = ?
    ORDER BY started_at LIMIT ?
"""


_SELECT_DELIVERY = """
    SELECT count(*), sum(state = 'delivered'), max(settled_at) FROM outbox WHERE tick = ?
"""


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """How far the stats of a tick are: how many there are, how many are delivered, and when the last was settled."""

    stats: int
    delivered: int
    settled_at: float | None


@dataclass(frozen=True, slots=True)
class ResultFilters:
    """Which results to return; an empty field accepts any value.

    `since` and `until` bound when results started, in Unix seconds: from the one on, before the other.
    """

    tick: str = ""
    orchestrator: str = ""
    service_uri: str = ""
    pipeline: str = ""
    model: str = ""
    outcome: str = ""
    reason: str = ""
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class ResultPoint:
    """One result as a dot of a chart: when it started, how long it took, and its outcome."""

    id: str
    started_at: float
    round_trip_s: float
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class CapabilityRow:
    """One capability of one orchestrator, with its recent results, oldest first."""

    orchestrator: str
    service_uri: str
    pipeline: str
    model: str
    kind: str
    warm: bool
    unscored_streak: int
    recent: tuple[ResultPoint, ...]

    @property
    def newest(self) -> ResultPoint:
        """Return the newest result."""
        return self.recent[-1]


@dataclass(frozen=True, slots=True)
class ExternalResultRow:
    """Another tester's result, its stat as JSON; `seq` orders pages, `state` is the outbox state of its stat.

    `state` is empty if the outbox entry has been deleted.
    """

    seq: int
    id: str
    received_at: float
    source: str
    kind: str
    stat: str
    state: str


class Queries:
    """Reads results, capabilities and other testers' results; it changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # By capability, the number of its newest result and its points: pages ask for those of all, again and again.
        self._points: dict[tuple[str, ...], tuple[int, tuple[ResultPoint, ...]]] = {}

    async def page(self, filters: ResultFilters, *, before: int | None = None, limit: int = 100) -> list[ResultRow]:
        """Return results, newest first, recorded before the one with seq `before`."""
        rows = await self._database.read_rows(*build_page_query(filters, before, limit))
        return [ResultRow.from_sql(row) for row in rows]

    async def get(self, job_id: str) -> ResultRow | None:
        """Return the result of a job, None if there is none."""
        rows = await self._database.read_rows(f"{_SELECT_RESULTS} WHERE r.id = ?", (job_id,))
        return ResultRow.from_sql(rows[0]) if rows else None

    async def latest(self) -> list[tuple[ResultRow, int]]:
        """Return the newest result of each capability, with the length of its run of unscored results."""
        return [(ResultRow.from_sql(row[1:]), row[0]) for row in await self._database.read_rows(_SELECT_LATEST)]

    async def targets(self) -> list[tuple[str, str]]:
        """Return every (address, service URI) that has a result."""
        return await self._database.read_rows(_SELECT_TARGETS)

    async def matrix(self, address: str = "", *, recent: int = _RECENT) -> list[CapabilityRow]:
        """Return the capabilities of one orchestrator, or of all, each with its recent results."""
        statement = _SELECT_ONE_ORCHESTRATOR if address else _SELECT_WHOLE_MATRIX
        return await self._capabilities(statement, {"address": address}, recent)

    async def capabilities(
        self, *, after: str, limit: int, pipeline: str = "", recent: int = _RECENT
    ) -> list[CapabilityRow]:
        """Return the capabilities of at most `limit` orchestrators whose addresses come after one, in their order."""
        values = {"after": after, "limit": limit, "pipeline": pipeline}
        return await self._capabilities(_SELECT_SOME_ORCHESTRATORS, values, recent)

    async def external_results(self, *, before: int | None, limit: int) -> list[ExternalResultRow]:
        """Return results of other testers, newest first, received before the one with seq `before`."""
        rows = await self._database.read_rows(_SELECT_EXTERNAL, (before if before is not None else 2**62, limit))
        return [ExternalResultRow(*row) for row in rows]

    async def newest_external(self, limit: int = 50) -> list[tuple[float, str, str, str]]:
        """Return the newest results of other testers as (received at, source, kind, stat as JSON)."""
        return await self._database.read_rows(_SELECT_NEWEST_EXTERNAL, (limit,))

    async def slowest(self, tick: str, limit: int = 10) -> list[tuple[str, str, str, str, float]]:
        """Return the slowest results of a tick as (id, address, pipeline, model, seconds)."""
        return await self._database.read_rows(_SELECT_SLOWEST, (tick, limit))

    async def delivery(self, tick: str) -> DeliveryRow:
        """Return how far the stats of a tick are on their way to the Leaderboard."""
        stats, delivered, settled_at = (await self._database.read_rows(_SELECT_DELIVERY, (tick,)))[0]
        return DeliveryRow(stats, delivered or 0, settled_at)

    async def timeline(self, tick: str, limit: int = 3000) -> list[tuple[str, str, str, float, float, str]]:
        """Return a tick's jobs as (id, gateway, pipeline, started at, round trip, outcome), in their order."""
        return await self._database.read_rows(_SELECT_TIMELINE, (tick, limit))

    async def _capabilities(self, statement: str, values: dict[str, Any], recent: int) -> list[CapabilityRow]:
        def work(db: sqlite3.Connection) -> list[CapabilityRow]:
            capabilities = []
            for address, uri, pipeline, model, kind, warm, streak, seq in db.execute(statement, values).fetchall():
                key = (address, uri, pipeline, model, kind)
                points = self._read_points(db, key, seq, recent)
                # Retention may delete the results between the two queries.
                if points:
                    capabilities.append(CapabilityRow(*key, bool(warm), streak, points))
            return capabilities

        return await self._database.read(work)

    def _read_points(
        self, db: sqlite3.Connection, key: tuple[str, ...], seq: int, recent: int
    ) -> tuple[ResultPoint, ...]:
        """Return the newest points of a capability, oldest first; `seq` is that of the newest."""
        cached = self._points.get(key) if recent == _RECENT else None
        # While a capability has no newer result, its points change only if late evidence unscores the newest one.
        if cached is not None and cached[0] == seq:
            newest = db.execute(_SELECT_POINT, (seq,)).fetchone()
            if newest is not None and cached[1][-1] == ResultPoint(*newest):
                return cached[1]
        # After a tick every capability has a newer result: only that is read, and again what was the newest.
        since, known = cached if cached is not None else (0, ())
        newer = [ResultPoint(*point) for point in db.execute(_SELECT_POINTS, (*key, since, recent))][::-1]
        ids = {point.id for point in newer}
        points = (*(point for point in known if point.id not in ids), *newer)[-recent:]
        if recent == _RECENT and points:
            if len(self._points) >= _MAX_CACHED:
                self._points.clear()
            self._points[key] = (seq, points)
        return points


def build_page_query(filters: ResultFilters, before: int | None, limit: int) -> tuple[str, tuple[str | float, ...]]:
    """Return the statement for a page of results, and its values."""
    conditions = {name: value for name in _BY_SELECTIVITY if (value := getattr(filters, name))}
    times = [(sign, moment) for sign, moment in ((">=", filters.since), ("<", filters.until)) if moment is not None]
    # A span with two ends holds few results, and one index has nearly all that an orchestrator's are filtered by. Of
    # these the numbers alone are sorted, and whole rows, with request and answer, are read only for the page itself.
    # A span with one end may hold nearly all: to walk back from the newest until the page is full is quicker there.
    is_capability = bool(filters.orchestrator and filters.pipeline and filters.model)
    is_sorted = not filters.tick and not is_capability and (bool(filters.orchestrator) or len(times) == 2)
    sort_by = () if not is_sorted else ("orchestrator",) if filters.orchestrator else ("started_at",)
    columns = _columns(conditions, sort_by) + [f"{'' if is_sorted else '+'}r.started_at" for _ in times]
    signs = ["=" for _ in conditions] + [sign for sign, _ in times]
    where = "".join(f" AND {column} {sign} ?" for column, sign in zip(columns, signs, strict=True))
    values = (before if before is not None else 2**62, *conditions.values(), *(moment for _, moment in times), limit)
    if not is_sorted:
        return f"{_SELECT_RESULTS} WHERE r.seq < ?{where} ORDER BY r.seq DESC LIMIT ?", values
    numbers = f"{select_statement(['r.seq'], 'results r')} WHERE +r.seq < ?{where} ORDER BY r.seq DESC LIMIT ?"
    return f"{_SELECT_RESULTS} WHERE r.seq IN ({numbers}) ORDER BY r.seq DESC", values


def _columns(conditions: Mapping[str, str], sort_by: tuple[str, ...]) -> list[str]:
    # Without statistics SQLite picks any index that fits. A `+` before a column keeps its index out of the choice, so
    # only the most selective condition is left. Most results pass, so `outcome = 'passed'` selects next to nothing.
    if sort_by:
        return [f"r.{name}" if name in sort_by else f"+r.{name}" for name in conditions]
    selective = [name for name in conditions if (name, conditions[name]) != ("outcome", "passed")] or list(conditions)
    indexed = _COLUMNS_OF_INDEX.get(selective[0], (selective[0],)) if selective else ()
    return [f"r.{name}" if name in indexed else f"+r.{name}" for name in conditions]
