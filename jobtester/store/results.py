"""Record results, each with its stat in one transaction, and change them when more is known."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import orjson

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.external_results import ExternalResult
from jobtester.domain.orchestrators import CapabilityKey
from jobtester.domain.reasons import Outcome, find_reason
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.store.database import Database, insert_statement
from jobtester.store.kept_files import insert_kept_file, kept_file_values
from jobtester.store.result_values import result_values, stat_values, storable_text

REPEAT_S = 86_400.0
_MAX_SEARCHED = 5000  # results that are searched for a note
_SENT = ("sending", "uncertain", "delivered")


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One recorded result. Its fields are the columns of the table; `seq` grows with every record and orders pages."""

    seq: int
    id: str
    tick: str
    orchestrator: str
    service_uri: str
    pipeline: str
    pipeline_name: str
    model: str
    warm: bool
    outcome: str
    reason: str
    message: str
    attribution: str
    evidence: tuple[str, ...]
    gateway: str
    targeting: str
    started_at: float
    recorded_at: float
    round_trip_s: float
    artifact_s: float | None
    status: int | None
    measures: dict[str, float]
    deferred: int
    estimated_price_wei: int | None
    request: str
    response: str
    notes: tuple[dict[str, str], ...] = ()
    kind: str = "batch"
    runner: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_sql(cls, row: tuple[Any, ...]) -> Self:
        """Return the result of a row with all columns in their order."""
        values = dict(zip(RESULT_COLUMNS, row, strict=True))
        price = values["estimated_price_wei"]
        return cls(
            **values
            | {
                "warm": bool(values["warm"]),
                "evidence": tuple(orjson.loads(values["evidence"])),
                "notes": tuple(orjson.loads(values["notes"])),
                "measures": orjson.loads(values["measures"]),
                "runner": orjson.loads(values["runner"]),
                "estimated_price_wei": int(price) if price is not None else None,
            }
        )


RESULT_COLUMNS = tuple(ResultRow.__dataclass_fields__)

_INSERT_RESULT = insert_statement("results", (*RESULT_COLUMNS[1:], "details")) + " ON CONFLICT (id) DO NOTHING"
# Recent results weigh more in the usual duration: each passed job moves it by three tenths of the difference.
_UPDATE_LATEST = """
    INSERT INTO latest (orchestrator, service_uri, pipeline, model, kind, seq, mean_s, unscored_streak)
    SELECT orchestrator, service_uri, pipeline, model, kind, seq, iif(outcome = 'passed', round_trip_s, NULL),
        outcome = 'unscored'
    FROM results WHERE seq = ?
    ON CONFLICT DO UPDATE SET seq = excluded.seq,
        mean_s = CASE WHEN excluded.mean_s IS NULL THEN mean_s WHEN mean_s IS NULL THEN excluded.mean_s
            ELSE mean_s + 0.3 * (excluded.mean_s - mean_s) END,
        unscored_streak = CASE WHEN excluded.unscored_streak THEN unscored_streak + 1 ELSE 0 END
"""
_INSERT_STAT = insert_statement(
    "outbox",
    (
        "result", "tick", "gateway", "state", "body", "region", "orchestrator", "pipeline", "model", "timestamp",
        "round_trip_s", "created_at", "due_at",
    ),
)  # fmt: skip
_INSERT_RECEIVED = "INSERT INTO received (digest, received_at, id, source, kind, stat) VALUES (?, ?, ?, ?, ?, ?)"
_FIND_RECEIVED = "SELECT 1 FROM received WHERE digest = ? AND received_at > ?"
_SELECT_EVIDENCE = """
    SELECT r.seq, r.outcome, r.attribution, r.evidence, o.state
    FROM results r LEFT JOIN outbox o ON o.result = r.id WHERE r.id = ?
"""
_UPDATE_EVIDENCE = "UPDATE results SET attribution = ?, evidence = ? WHERE seq = ?"
_DELETE_STAT = "DELETE FROM outbox WHERE result = ?"
_MOVE_HELD = "UPDATE outbox SET state = ? WHERE state = 'held' AND tick = ? AND gateway = ?"
_RELEASE_SUSPECTS = "UPDATE outbox SET state = 'pending', created_at = ? WHERE state = 'suspect' AND tick = ?"
_SELECT_SUSPECTS = """
    SELECT r.seq FROM outbox o JOIN results r ON r.id = o.result WHERE o.state = 'suspect' AND o.gateway = ?
"""
_DELETE_SUSPECTS = "DELETE FROM outbox WHERE state = 'suspect' AND gateway = ?"
_UNSCORE = "UPDATE results SET outcome = 'unscored', reason = ?, message = ? WHERE seq = ?"
_LENGTHEN_STREAK = "UPDATE latest SET unscored_streak = unscored_streak + 1 WHERE seq = ?"
_SELECT_STREAKS = """
    SELECT r.orchestrator, r.service_uri, r.pipeline, r.model, r.kind, l.unscored_streak
    FROM results r JOIN latest l ON l.seq = r.seq WHERE r.tick = ?
"""
_SELECT_DURATIONS = """
    SELECT orchestrator, service_uri, pipeline, model, kind, mean_s FROM latest WHERE mean_s IS NOT NULL
"""
_SELECT_PRICES = """
    SELECT estimated_price_wei FROM results WHERE recorded_at >= ? AND estimated_price_wei IS NOT NULL
"""
_SELECT_TESTED = """
    SELECT DISTINCT orchestrator, service_uri, pipeline, model, kind FROM results
    WHERE recorded_at >= ? AND outcome != 'unscored'
"""
_SELECT_NOTED = """
    SELECT DISTINCT pipeline, model, request
    FROM (SELECT pipeline, model, request, notes FROM results WHERE reason = ? ORDER BY seq DESC LIMIT ?)
    WHERE instr(notes, ?) > 0
"""


class Results:
    """Records results with their stats, moves held stats, and answers what planning a tick asks of past results."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Work on an open database; the clock returns Unix seconds."""
        self._database = database
        self._clock = clock

    async def record(
        self,
        result: Result,
        stat: Stat | None,
        *,
        state: Literal["pending", "held"] = "pending",
        not_before: float = 0.0,
    ) -> bool:
        """Record a result, and its stat in the outbox, to be posted at `not_before` (Unix seconds) at the earliest.

        Returns False if the job has a result already, which then stands.
        """
        now = self._clock()
        row = result_values(result, now)
        file_row = kept_file_values(result, now)
        stat_row = None
        if stat is not None:
            stat_row = stat_values(stat, result.id, result.job.tick, result.gateway, state, now, not_before)

        def work(db: sqlite3.Connection) -> bool:
            inserted = db.execute(_INSERT_RESULT, row)
            if not inserted.rowcount:
                return False
            db.execute(_UPDATE_LATEST, (inserted.lastrowid,))
            if file_row is not None:
                insert_kept_file(db, inserted.lastrowid or 0, file_row)
            if stat_row is not None:
                db.execute(_INSERT_STAT, stat_row)
            return True

        return await self._database.write(work)

    async def add_evidence(self, job_id: str, kind: AttributionKind, line: str) -> bool:
        """Add evidence that came after the result was recorded, and return True if there is such a result.

        Until its stat is sent, a refutation makes the result unscored and withdraws the stat. After that nothing can be
        taken back, so only the line of evidence is added.
        """

        def work(db: sqlite3.Connection) -> bool:
            row = db.execute(_SELECT_EVIDENCE, (job_id,)).fetchone()
            if row is None:
                return False
            seq, outcome, attribution, evidence, state = row
            before = Attribution(AttributionKind(attribution), tuple(orjson.loads(evidence)))
            after = before.with_evidence(kind, storable_text(line))
            shown = before if state in _SENT else after
            db.execute(_UPDATE_EVIDENCE, (shown.kind.value, orjson.dumps(after.evidence).decode(), seq))
            if after.kind is AttributionKind.REFUTED and state not in _SENT:
                db.execute(_DELETE_STAT, (job_id,))
                if outcome != Outcome.UNSCORED:
                    _unscore(db, seq, "refuted", line)
            return True

        return await self._database.write(work)

    async def release_held(self, tick: str, gateway: str) -> int:
        """Make the held stats of a gateway in a tick pending, and return their number."""
        return await self._update(_MOVE_HELD, "pending", tick, gateway)

    async def suspect_held(self, tick: str, gateway: str) -> int:
        """Make the held stats of a gateway in a tick suspect, and return their number."""
        return await self._update(_MOVE_HELD, "suspect", tick, gateway)

    async def release_suspects(self, tick: str) -> int:
        """Make the suspect stats of a tick pending, because a person decided so, and return their number."""
        return await self._update(_RELEASE_SUSPECTS, self._clock(), tick)

    async def unscore_suspects(self, gateway: str) -> int:
        """Make results unscored whose stats are suspect, and return their number.

        A job has passed through the same gateway since, so what failed before was the path, not the orchestrators.
        """

        def work(db: sqlite3.Connection) -> int:
            rows = db.execute(_SELECT_SUSPECTS, (gateway,)).fetchall()
            for (seq,) in rows:
                _unscore(db, seq, "tick_suspect", find_reason("tick_suspect").meaning)
            db.execute(_DELETE_SUSPECTS, (gateway,))
            return len(rows)

        return await self._database.write(work)

    async def record_external(self, body: bytes, source: str, results: Sequence[ExternalResult]) -> bool:
        """Record other testers' results and queue their stats; return False for a body that came within a day."""
        now, digest = self._clock(), hashlib.sha256(body).hexdigest()
        received, stats = [], []
        for number, result in enumerate(results):
            row_id = f"received-{digest[:32]}-{now:.6f}-{number}"
            received.append((digest, now, row_id, source, result.kind, orjson.dumps(result.fields).decode()))
            stats.append(stat_values(result.stat, row_id, "", source, "pending", now, 0.0))

        def work(db: sqlite3.Connection) -> bool:
            if db.execute(_FIND_RECEIVED, (digest, now - REPEAT_S)).fetchone() is not None:
                return False
            db.executemany(_INSERT_RECEIVED, received)
            db.executemany(_INSERT_STAT, stats)
            return True

        return await self._database.write(work)

    async def unscored_streaks(self, tick: str) -> dict[CapabilityKey, int]:
        """Return the ticks in a row without a score of the capabilities that a tick tested last."""
        return {CapabilityKey(*row[:5]): row[5] for row in await self._database.read_rows(_SELECT_STREAKS, (tick,))}

    async def durations(self) -> dict[CapabilityKey, float]:
        """Return the usual duration of passed jobs by capability, in seconds."""
        return {CapabilityKey(*row[:5]): row[5] for row in await self._database.read_rows(_SELECT_DURATIONS)}

    async def spent_wei(self, since: float) -> int:
        """Return the sum of the estimated prices of jobs recorded since an instant, in wei."""
        # Prices exceed SQLite's 64-bit integers, so they are stored as text and added up here.
        return sum(int(price) for (price,) in await self._database.read_rows(_SELECT_PRICES, (since,)))

    async def tested_since(self, since: float) -> set[CapabilityKey]:
        """Return the capabilities with a scored result since an instant."""
        return {CapabilityKey(*row) for row in await self._database.read_rows(_SELECT_TESTED, (since,))}

    async def requests_with_note(self, reason: str, code: str) -> list[tuple[str, str, str]]:
        """Return pipeline, model and request of the newest results that have a reason and the note with a code."""
        return await self._database.read_rows(_SELECT_NOTED, (reason, _MAX_SEARCHED, f'"note":"{code}"'))

    async def _update(self, statement: str, *values: Any) -> int:
        return await self._database.write(lambda db: db.execute(statement, values).rowcount)


def _unscore(db: sqlite3.Connection, seq: int, code: str, message: str) -> None:
    """Make a scored result unscored, and lengthen the streak of its capability if it is the newest."""
    db.execute(_UNSCORE, (code, storable_text(message), seq))
    db.execute(_LENGTHEN_STREAK, (seq,))
