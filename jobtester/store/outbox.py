"""The outbox: stats on their way to the Leaderboard, and how far each got."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import orjson

from jobtester.domain.suspect_detection import JOBS_PER_PASS, MIN_JOBS
from jobtester.store.database import Database

STATES = ("held", "suspect", "pending", "sending", "uncertain", "delivered", "refused", "expired", "dropped")
_OPEN = ("pending", "sending", "uncertain")
# Nothing waits so long to be posted, or to be looked for, on purpose: the clock has been set back since.
_BOGUS_WAIT_S = 7200.0
_BOGUS_LOOK_S = 60.0
_SUSPECT = (
    "UPDATE outbox SET state = 'suspect' WHERE state = 'held' AND (tick, gateway) IN (SELECT tick, gateway"
    " FROM results WHERE tick IN (SELECT tick FROM outbox WHERE state = 'held') GROUP BY tick, gateway"
    f" HAVING count(*) >= {MIN_JOBS} AND sum(outcome = 'passed') * {JOBS_PER_PASS} < count(*)"
    " AND count(DISTINCT CASE WHEN outcome = 'failed' THEN reason END) = 1)"
)


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One stat: the exact bytes, the fields by which its row is found again, and what happened so far.

    Instants are Unix seconds; `due_at` is when it may be tried next. `first_sent_at` and `last_sent_at` enclose every
    instant at which it can have been sent. `maybe_double` says that it was posted again
    without anybody having been able to look whether it was there. `look_ups` counts the look-ups in a row that missed it
    without a stat to compare with; `audited_at` is when it was read back after its delivery.
    """

    seq: int
    result: str
    tick: str
    gateway: str
    state: str
    body: bytes
    region: str
    orchestrator: str
    pipeline: str
    model: str
    timestamp: int
    round_trip_s: float
    created_at: float
    due_at: float
    attempts: int
    first_sent_at: float | None
    last_sent_at: float | None
    settled_at: float | None
    problem: str
    maybe_double: bool
    look_ups: int
    audited_at: float | None


@dataclass(frozen=True, slots=True)
class StateChange:
    """What became of one entry: its new state, when it is due again, and why."""

    seq: int
    state: Literal["delivered", "refused", "pending", "uncertain"]
    due_at: float = 0.0
    problem: str = ""
    maybe_double: bool = False
    look_ups: int = 0


class DueTimes(NamedTuple):
    """When the next entry may be posted, and when the next is to be looked for, in Unix seconds; None if none waits."""

    posted: float | None
    looked_up: float | None


class RetryCounts(NamedTuple):
    """How many entries a person let be posted again: at once, after a look-up, and of those at once how many may be
    counted twice."""

    posted: int
    looked_up: int
    maybe_double: int


class Neighbors(NamedTuple):
    """Delivered stats by which an answer about another is judged.

    `control` was stored before that one was sent; `witness` is any that was delivered; `later_at` is when one that was
    sent later was stored, in Unix seconds. Each is None if there is none.
    """

    control: OutboxEntry | None
    witness: OutboxEntry | None
    later_at: float | None


_COLUMNS = tuple(OutboxEntry.__dataclass_fields__)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM outbox"


class Outbox:
    """Moves entries from state to state; every move is one transaction."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Work on an open database; the clock gives Unix seconds."""
        self._database = database
        self._clock = clock

    async def recover(self, *, hold: bool = True) -> int:
        """Make uncertain what an earlier process was sending when it died, and settle what it held; count the former.

        A tick that died is judged like one that ended, by the rule of `Suspicion.holds`: its held stats are suspect, or
        may be posted. `hold` False says that they always may.
        """
        now = self._clock()

        def work(db: sqlite3.Connection) -> int:
            if hold:
                db.execute(_SUSPECT)
            db.execute("UPDATE outbox SET state = 'pending' WHERE state = 'held'")
            return db.execute(
                "UPDATE outbox SET state = 'uncertain', due_at = 0, problem = 'the tester died while sending',"
                " last_sent_at = ? WHERE state = 'sending'",
                (now,),
            ).rowcount

        return await self._database.write(work)

    async def claim(self, limit: int) -> list[OutboxEntry]:
        """Take the oldest due entries and mark them as being sent, before any byte of them leaves."""
        now = self._clock()

        def work(db: sqlite3.Connection) -> list[OutboxEntry]:
            found = db.execute(
                "UPDATE outbox SET state = 'sending', attempts = attempts + 1, last_sent_at = ?,"
                " first_sent_at = coalesce(min(first_sent_at, ?), ?) WHERE seq IN (SELECT seq FROM outbox"
                " WHERE state = 'pending' AND +due_at NOT BETWEEN ? AND ? ORDER BY seq LIMIT ?)"
                f" RETURNING {', '.join(_COLUMNS)}",
                (now, now, now, now + 1e-6, now + _BOGUS_WAIT_S, limit),
            ).fetchall()
            return sorted((_entry(row) for row in found), key=lambda entry: entry.seq)

        return await self._database.write(work)

    async def apply(self, moves: Sequence[StateChange]) -> None:
        """Note what became of entries, all in one transaction.

        What was being sent had left by now at the latest: a claimed stat may wait for its turn, so only this instant
        says from when on a miss can be believed. Sending instants are never later than now, even after the clock was
        set back: what was sent is looked for from there on. What a person has dropped meanwhile stays so.
        """
        now = self._clock()

        alike: dict[StateChange, list[int]] = {}  # nearly all are delivered
        for move in moves:
            alike.setdefault(replace(move, seq=0), []).append(move.seq)

        def work(db: sqlite3.Connection) -> None:
            for move, seqs in alike.items():
                db.execute(
                    "UPDATE outbox SET state = ?, due_at = ?, problem = ?, maybe_double = maybe_double OR ?, look_ups = ?,"
                    " settled_at = ?, first_sent_at = min(first_sent_at, ?),"
                    " last_sent_at = iif(state = 'sending', ?, min(last_sent_at, ?))"
                    " WHERE seq IN (SELECT value FROM json_each(?)) AND state != 'dropped'",
                    (
                        move.state, move.due_at, move.problem, int(move.maybe_double), move.look_ups,
                        now if move.state in ("delivered", "refused") else None, now, now, now,
                        orjson.dumps(seqs).decode(),
                    ),
                )  # fmt: skip

        await self._database.write(work)

    async def due_look_ups(self, limit: int) -> list[OutboxEntry]:
        """Give uncertain entries that are due to be looked for, the longest due first."""
        now = self._clock()
        found = await self._database.read(
            lambda db: db.execute(
                f"{_SELECT} WHERE state = 'uncertain' AND due_at NOT BETWEEN ? AND ? ORDER BY due_at, seq LIMIT ?",
                (now + 1e-6, now + _BOGUS_LOOK_S, limit),
            ).fetchall()
        )
        return [_entry(row) for row in found]

    async def neighbors(self, entry: OutboxEntry) -> Neighbors:
        """Return the delivered stats against which an answer about `entry` can be held.

        A control was delivered before `entry` was first sent, so every complete answer that could show `entry` shows it
        too, and further down, since rows come newest first. One of the same capability is preferred: the question about
        it is smaller.
        """
        first = entry.first_sent_at or entry.created_at
        last = entry.last_sent_at or entry.created_at
        columns = ", ".join(_COLUMNS)

        def work(db: sqlite3.Connection) -> Neighbors:
            def one(where: str, *values: Any) -> OutboxEntry | None:
                row = db.execute(
                    f"SELECT {columns} FROM outbox WHERE state = 'delivered' AND seq != ? AND {where} LIMIT 1",
                    (entry.seq, *values),
                ).fetchone()
                return _entry(row) if row is not None else None

            older = "orchestrator = ? AND settled_at <= ?"
            control = one(
                f"{older} AND pipeline = ? AND model = ? ORDER BY settled_at DESC",
                entry.orchestrator, first, entry.pipeline, entry.model,
            )  # fmt: skip
            if control is None and entry.model:
                control = one(f"{older} AND model != '' ORDER BY settled_at DESC", entry.orchestrator, first)
            witness = one("model != '' ORDER BY seq DESC")
            # Only what was answered tells that the database takes rows; `settled_at` of a look-up's find is later.
            later = db.execute(
                "SELECT settled_at FROM outbox WHERE state = 'delivered' AND seq != ? AND first_sent_at > ?"
                " ORDER BY seq DESC LIMIT 1",
                (entry.seq, last),
            ).fetchone()
            return Neighbors(control, witness, later[0] if later is not None else None)

        return await self._database.read(work)

    async def due_audits(self, per_tick: int, *, older_s: float, newer_s: float) -> list[OutboxEntry]:
        """Return delivered stats to read back: at random, at most `per_tick` of each tick that were never read back.

        Only those delivered more than `older_s` and less than `newer_s` seconds ago.
        """
        now = self._clock()
        found = await self._database.read(
            lambda db: db.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM (SELECT *, row_number() OVER (PARTITION BY tick"
                " ORDER BY audited_at IS NULL, random()) AS place FROM outbox WHERE state = 'delivered'"
                " AND settled_at BETWEEN ? AND ?) WHERE place <= ? AND audited_at IS NULL LIMIT 40",
                (now - newer_s, now - older_s, per_tick),
            ).fetchall()
        )
        return [_entry(row) for row in found]

    async def record_audit(self, seq: int, *, lost: str = "") -> None:
        """Record that a delivered stat was read back; where it is `lost`, and why, let it be posted once more.

        After that it is to be read back anew.
        """
        now = self._clock()

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE outbox SET audited_at = ? WHERE seq = ?", (now, seq))
            if lost:
                db.execute(
                    "UPDATE outbox SET state = 'pending', due_at = 0, settled_at = NULL, created_at = ?, problem = ?,"
                    " audited_at = NULL"
                    " WHERE seq = ? AND state = 'delivered'",
                    (now, lost, seq),
                )

        await self._database.write(work)

    async def expire(self, max_age_s: float) -> int:
        """Give up posting stats that are too old: the Leaderboard would date them by their arrival."""
        now = self._clock()
        return await self._database.write(
            lambda db: (
                db.execute(
                    "UPDATE outbox SET state = 'expired', settled_at = ?, problem = 'older than delivery.max_age'"
                    " WHERE state = 'pending' AND created_at < ?",
                    (now, now - max_age_s),
                ).rowcount
            )
        )

    async def next_due(self) -> DueTimes:
        """Give when the next entries are due."""
        found = await self._database.read(
            lambda db: db.execute(
                "SELECT (SELECT min(due_at) FROM outbox WHERE state = 'pending'),"
                " (SELECT min(due_at) FROM outbox WHERE state = 'uncertain')"
            ).fetchone()
        )
        return DueTimes(*found)

    async def count_waiting(self) -> int:
        """Count what may still be posted without anybody's help."""
        found = await self._database.read(
            lambda db: db.execute(f"SELECT count(*) FROM outbox WHERE state IN {_OPEN}").fetchone()
        )
        return int(found[0])

    async def counts(self, tick: str = "") -> dict[str, int]:
        """Return the number of entries by state, every state included; of one tick, or of all."""
        found = await self._database.read(
            lambda db: db.execute(
                f"SELECT state, count(*) FROM outbox {'WHERE tick = ?' if tick else ''} GROUP BY state",
                (tick,) if tick else (),
            ).fetchall()
        )
        return dict.fromkeys(STATES, 0) | dict(found)

    async def oldest_age_s(self, now: float) -> float:
        """Give the age in seconds of the oldest stat that waits, 0 if none does."""
        found = await self._database.read(
            lambda db: db.execute(f"SELECT min(created_at) FROM outbox WHERE state IN {_OPEN}").fetchone()
        )
        return max(0.0, now - found[0]) if found[0] is not None else 0.0

    async def entries(self, states: tuple[str, ...] = (), limit: int = 200) -> list[OutboxEntry]:
        """Give entries in these states (empty: all that are not delivered), oldest first."""
        wanted = states or tuple(state for state in STATES if state != "delivered")
        marks = ", ".join("?" * len(wanted))
        found = await self._database.read(
            lambda db: db.execute(
                f"{_SELECT} WHERE state IN ({marks}) ORDER BY seq LIMIT ?",
                (*wanted, limit),
            ).fetchall()
        )
        return [_entry(row) for row in found]

    async def retry(self, seqs: list[int] | None = None) -> RetryCounts:
        """Let refused, expired or dropped entries be posted again, because a person says so.

        A dropped one that had been sent is looked for first. An uncertain one is posted at once where it is named: the
        person knows that it may then be counted twice.
        """
        now = self._clock()
        again = "due_at = ?, created_at = ?, settled_at = NULL, problem = ''"
        double = 0
        if seqs is not None:
            double = await self._pick(
                f"UPDATE outbox SET state = 'pending', maybe_double = 1, {again} WHERE state = 'uncertain'",
                (now, now),
                seqs,
            )
        looked_up = await self._pick(
            f"UPDATE outbox SET state = 'uncertain', {again} WHERE state = 'dropped' AND attempts > 0", (now, now), seqs
        )
        posted = await self._pick(
            f"UPDATE outbox SET state = 'pending', {again} WHERE state IN ('refused', 'expired', 'dropped')",
            (now, now),
            seqs,
        )
        return RetryCounts(posted + double, looked_up, double)

    async def drop(self, seqs: list[int] | None = None) -> int:
        """Give up posting entries, because a person says so; their results stay."""
        return await self._pick(
            "UPDATE outbox SET state = 'dropped', settled_at = ? WHERE state NOT IN ('delivered', 'sending', 'dropped')",
            (self._clock(),),
            seqs,
        )

    async def _pick(self, statement: str, values: tuple[Any, ...], seqs: list[int] | None) -> int:
        def work(db: sqlite3.Connection) -> int:
            if seqs is None:
                return db.execute(statement, values).rowcount
            return sum(db.execute(f"{statement} AND seq = ?", (*values, seq)).rowcount for seq in seqs)

        return await self._database.write(work)


def _entry(row: tuple[Any, ...]) -> OutboxEntry:
    values = dict(zip(_COLUMNS, row, strict=True))
    return OutboxEntry(**values | {"maybe_double": bool(values["maybe_double"])})
