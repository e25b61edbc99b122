"""Results: kept together with what has to be posted of them, in one transaction."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.external_results import ExternalResult
from jobtester.domain.orchestrators import CapabilityKey
from jobtester.domain.reasons import Outcome, find_reason
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.store.database import Database
from jobtester.store.recording import NewResult, insert_outbox_rows, insert_results, outbox_row
from jobtester.store.rows import SELECT, ResultRow, storable_text

REPEAT_S = 86_400.0
_NEWEST = 5000  # results that are looked through for a note
_SENT = ("sending", "uncertain", "delivered")
_BY_FEWNESS = ("tick", "orchestrator", "model", "reason", "outcome", "pipeline")


@dataclass(frozen=True, slots=True)
class ResultFilters:
    """Which results to give; empty means any."""

    tick: str = ""
    orchestrator: str = ""
    service_uri: str = ""
    pipeline: str = ""
    model: str = ""
    outcome: str = ""
    reason: str = ""


class Results:
    """Keeps results and gives them back."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Work on an open database; the clock gives Unix seconds."""
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
        """Keep a result, and its stat in the outbox; False if the job has a result already, which then stands."""
        now = self._clock()
        row = None
        if stat is not None:
            row = outbox_row(stat, result.id, result.job.tick, result.gateway, state, now, not_before)
        return await self._database.write_grouped(insert_results, NewResult(result, now, row))

    async def add_evidence(self, job_id: str, kind: AttributionKind, line: str) -> bool:
        """Add evidence that came after the result was recorded; tell whether the result was found.

        Until its stat is sent, a refutation makes the result unscored and withdraws the stat. Later nothing about it
        can be taken back, and the evidence is kept as a note.
        """

        def work(db: sqlite3.Connection) -> bool:
            found = db.execute(
                "SELECT r.seq, r.outcome, r.attribution, r.evidence, o.state FROM results r"
                " LEFT JOIN outbox o ON o.result = r.id WHERE r.id = ?",
                (job_id,),
            ).fetchone()
            if found is None:
                return False
            seq, came_to, before, evidence, state = found
            after = Attribution(AttributionKind(before), tuple(orjson.loads(evidence))).with_evidence(
                kind, storable_text(line)
            )
            db.execute(
                "UPDATE results SET attribution = ?, evidence = ? WHERE seq = ?",
                (before if state in _SENT else after.kind.value, orjson.dumps(after.evidence).decode(), seq),
            )
            if after.kind is AttributionKind.REFUTED and state not in _SENT:
                db.execute("DELETE FROM outbox WHERE result = ?", (job_id,))
                if came_to != Outcome.UNSCORED:
                    _unscore(db, seq, "refuted", line)
            return True

        return await self._database.write(work)

    async def release_held(self, tick: str, gateway: str) -> int:
        """Let the held stats of a gateway in a tick be posted: something has passed, so the path works."""
        return await self._move("pending", "held", tick, gateway)

    async def suspect_held(self, tick: str, gateway: str) -> int:
        """Hold back the stats of a gateway in a tick: nearly all failed alike."""
        return await self._move("suspect", "held", tick, gateway)

    async def release_suspects(self, tick: str) -> int:
        """Post a held-back tick after all, because a person says so; give how many stats that were."""
        return await self._database.write(
            lambda db: (
                db.execute(
                    "UPDATE outbox SET state = 'pending', created_at = ? WHERE state = 'suspect' AND tick = ?",
                    (self._clock(), tick),
                ).rowcount
            )
        )

    async def unscore_suspects(self, gateway: str) -> int:
        """Make held-back results of earlier ticks unscored: something passed through the same gateway since."""

        def work(db: sqlite3.Connection) -> int:
            found = db.execute(
                "SELECT r.seq FROM outbox o JOIN results r ON r.id = o.result WHERE o.state = 'suspect' AND o.gateway = ?",
                (gateway,),
            ).fetchall()
            for (seq,) in found:
                _unscore(db, seq, "tick_suspect", find_reason("tick_suspect").meaning)
            db.execute("DELETE FROM outbox WHERE state = 'suspect' AND gateway = ?", (gateway,))
            return len(found)

        return await self._database.write(work)

    async def record_external(self, body: bytes, source: str, found: Sequence[ExternalResult]) -> bool:
        """Keep other testers' results and forward them; False, and nothing done, for a body that came within a day."""
        now, digest = self._clock(), hashlib.sha256(body).hexdigest()

        def work(db: sqlite3.Connection) -> bool:
            before = db.execute(
                "SELECT 1 FROM received WHERE digest = ? AND received_at > ?", (digest, now - REPEAT_S)
            ).fetchone()
            if before is not None:
                return False
            for number, one in enumerate(found):
                job_id = f"received-{digest[:32]}-{now:.6f}-{number}"
                db.execute(
                    "INSERT INTO received (digest, received_at, id, source, kind, stat) VALUES (?, ?, ?, ?, ?, ?)",
                    (digest, now, job_id, source, one.kind, orjson.dumps(one.fields).decode()),
                )
                insert_outbox_rows(db, [outbox_row(one.stat, job_id, "", source, "pending", now, 0.0)])
            return True

        return await self._database.write(work)

    async def page(self, filters: ResultFilters, *, before: int | None = None, limit: int = 100) -> list[ResultRow]:
        """Give results, newest first, recorded before the one with seq `before`."""
        statement, values = build_page_query(filters, before, limit)
        found = await self._database.read(lambda db: db.execute(statement, values).fetchall())
        return [ResultRow.from_sql(row) for row in found]

    async def get(self, job_id: str) -> ResultRow | None:
        """Give one result by its id."""
        found = await self._database.read(lambda db: db.execute(f"{SELECT} WHERE r.id = ?", (job_id,)).fetchone())
        return ResultRow.from_sql(found) if found is not None else None

    async def latest(self) -> list[tuple[ResultRow, int]]:
        """Give the newest result of every orchestrator × pipeline × model, with its run of unscored ones."""
        found = await self._database.read(
            lambda db: db.execute(
                SELECT.replace("SELECT ", "SELECT l.unscored_streak, ", 1)
                + " JOIN latest l ON l.seq = r.seq ORDER BY r.orchestrator, r.service_uri, r.pipeline, r.model"
            ).fetchall()
        )
        return [(ResultRow.from_sql(row[1:]), int(row[0])) for row in found]

    async def unscored_streaks(self, tick: str) -> list[tuple[str, str, str, int]]:
        """Return (address, pipeline, model, ticks in a row without a score) of what a tick has tested last."""
        return await self._database.read(
            lambda db: db.execute(
                "SELECT r.orchestrator, r.pipeline, r.model, l.unscored_streak FROM results r JOIN latest l ON l.seq = r.seq"
                " WHERE r.tick = ?",
                (tick,),
            ).fetchall()
        )

    async def targets(self) -> list[tuple[str, str]]:
        """Return every (address, service URI) that has a result."""
        return await self._database.read(
            lambda db: db.execute("SELECT DISTINCT orchestrator, service_uri FROM latest").fetchall()
        )

    async def history(self, address: str, *, limit: int = 500) -> list[ResultRow]:
        """Give the newest results of one orchestrator, newest first."""
        return await self.page(ResultFilters(orchestrator=address), limit=limit)

    async def durations(self) -> dict[CapabilityKey, float]:
        """Give how long passed jobs of each capability took of late, in seconds."""
        found = await self._database.read(
            lambda db: db.execute(
                "SELECT orchestrator, service_uri, pipeline, model, mean_s FROM latest WHERE mean_s IS NOT NULL"
            ).fetchall()
        )
        return {CapabilityKey(*row[:4]): row[4] for row in found}

    async def spent_wei(self, since: float) -> int:
        """Sum the estimated prices of jobs that began since an instant, in wei."""
        found = await self._database.read(
            lambda db: db.execute(
                "SELECT estimated_price_wei FROM results WHERE recorded_at >= ? AND estimated_price_wei IS NOT NULL",
                (since,),
            ).fetchall()
        )
        return sum(int(price) for (price,) in found)

    async def tested_since(self, since: float) -> set[CapabilityKey]:
        """Give the capabilities (address, service URI, pipeline, model) that have a scored result since an instant."""
        found = await self._database.read(
            lambda db: db.execute(
                "SELECT DISTINCT orchestrator, service_uri, pipeline, model FROM results"
                " WHERE recorded_at >= ? AND outcome != 'unscored'",
                (since,),
            ).fetchall()
        )
        return {CapabilityKey(*row) for row in found}

    async def requests_with_note(self, reason: str, code: str) -> list[tuple[str, str, str]]:
        """Return pipeline, model and request of the newest results that have a reason and the note with a code."""
        found = await self._database.read(
            lambda db: db.execute(
                "SELECT DISTINCT pipeline, model, request FROM"
                " (SELECT pipeline, model, request, notes FROM results WHERE reason = ? ORDER BY seq DESC LIMIT ?)"
                " WHERE instr(notes, ?) > 0",
                (reason, _NEWEST, f'"note":"{code}"'),
            ).fetchall()
        )
        return [(pipeline, model, request) for pipeline, model, request in found]

    async def _move(self, to: str, of: str, tick: str, gateway: str) -> int:
        return await self._database.write(
            lambda db: (
                db.execute(
                    "UPDATE outbox SET state = ? WHERE state = ? AND tick = ? AND gateway = ?", (to, of, tick, gateway)
                ).rowcount
            )
        )


def build_page_query(filters: ResultFilters, before: int | None, limit: int) -> tuple[str, tuple[str | int, ...]]:
    """Write the query for a page of results, and its values."""
    wanted = {name: value for name in _BY_FEWNESS if (value := getattr(filters, name))}
    where = "".join(f" AND {column} = ?" for column in _columns(wanted))
    values = (before if before is not None else 2**62, *wanted.values(), limit)
    return f"{SELECT} WHERE r.seq < ?{where} ORDER BY r.seq DESC LIMIT ?", values


def _columns(wanted: Mapping[str, str]) -> list[str]:
    """Name the columns that filter, so that the one with the fewest rows of a value is looked up and the rest checked.

    SQLite would pick any; a `+` keeps it from a column's index. Most results pass, so that outcome finds little.
    """
    few = [name for name in wanted if (name, wanted[name]) != ("outcome", "passed")] or list(wanted)
    looked_up = {"orchestrator", "pipeline", "model"} if few[:1] == ["orchestrator"] else set(few[:1])
    return [f"r.{name}" if name in looked_up else f"+r.{name}" for name in wanted]


def _unscore(db: sqlite3.Connection, seq: int, code: str, message: str) -> None:
    """Make a scored result unscored, and count it so among its capability's newest."""
    db.execute(
        "UPDATE results SET outcome = 'unscored', reason = ?, message = ? WHERE seq = ?",
        (code, storable_text(message), seq),
    )
    db.execute("UPDATE latest SET unscored_streak = unscored_streak + 1 WHERE seq = ?", (seq,))
