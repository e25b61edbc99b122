"""Change the state of stats on their way to the Leaderboard."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import orjson

from jobtester.domain.reasons import Outcome
from jobtester.domain.suspect_detection import SuspectDetector
from jobtester.store.database import Database, select_statement

STATES = ("held", "suspect", "pending", "sending", "uncertain", "delivered", "refused", "expired", "dropped")
# No entry waits longer than this on purpose, to be posted or to be looked up. One that would has a due time from before
# the clock was set back, so it is due now.
_MAX_WAIT_S = 7200.0
_MAX_LOOK_UP_WAIT_S = 60.0
_MAX_AUDITS = 40


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One stat: the exact bytes, the fields by which its row is found again, and what happened so far.

    Its fields are the columns of the table. Instants are Unix seconds; `due_at` is when it may be tried next.
    `first_sent_at` and `last_sent_at` enclose every instant at which it can have been sent. `maybe_double` is True if
    it was posted again although no look-up could show whether it was stored. `look_ups` counts the look-ups in a row
    that missed it without a stat to compare with; `audited_at` is when it was read back after its delivery.
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
    """The new state of one entry, when it is due again, and why."""

    seq: int
    state: Literal["delivered", "refused", "pending", "uncertain"]
    due_at: float = 0.0
    problem: str = ""
    maybe_double: bool = False
    look_ups: int = 0


class DueTimes(NamedTuple):
    """When the next entry may be posted, and when the next is looked up, in Unix seconds; None if none waits."""

    posted: float | None
    looked_up: float | None


class RetryCounts(NamedTuple):
    """How many entries are posted again at once, how many after a look-up; of the first, how many may count twice."""

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
_SELECT = select_statement(_COLUMNS, "outbox")
_LIST = "(SELECT value FROM json_each(?))"  # a list of any length as one value, so that statements are constants
_SELECT_OTHER_DELIVERED = f"{_SELECT} WHERE state = 'delivered' AND seq != :seq"
_COUNT_HELD_OUTCOMES = """
    SELECT tick, gateway, outcome, reason, count(*) FROM results
    WHERE tick IN (SELECT tick FROM outbox WHERE state = 'held') GROUP BY tick, gateway, outcome, reason
"""
_SUSPECT_HELD = "UPDATE outbox SET state = 'suspect' WHERE state = 'held' AND tick = ? AND gateway = ?"
_RELEASE_HELD = "UPDATE outbox SET state = 'pending' WHERE state = 'held'"
_DOUBT_SENDING = """
    UPDATE outbox SET state = 'uncertain', due_at = 0, problem = 'the tester died while sending', last_sent_at = ?
    WHERE state = 'sending'
"""
# `+due_at` keeps the index of due times out of the choice: the oldest first is the order of `seq`.
_CLAIM = """
    UPDATE outbox SET state = 'sending', attempts = attempts + 1, last_sent_at = :now,
        first_sent_at = coalesce(min(first_sent_at, :now), :now)
    WHERE seq IN (
        SELECT seq FROM outbox WHERE state = 'pending' AND +due_at NOT BETWEEN :soon AND :too_late
        ORDER BY seq LIMIT :limit
    )
    RETURNING seq
"""
_SELECT_CLAIMED = f"{_SELECT} WHERE seq IN {_LIST} ORDER BY seq"
_APPLY = """
    UPDATE outbox SET state = :state, due_at = :due_at, problem = :problem, look_ups = :look_ups,
        maybe_double = maybe_double OR :maybe_double,
        settled_at = iif(:state IN ('delivered', 'refused'), :now, NULL),
        first_sent_at = min(first_sent_at, :now),
        last_sent_at = iif(state = 'sending', :now, min(last_sent_at, :now))
    WHERE seq = :seq AND state != 'dropped'
"""
_SELECT_LOOK_UPS = f"{_SELECT} WHERE state = 'uncertain' AND due_at NOT BETWEEN ? AND ? ORDER BY due_at, seq LIMIT ?"
_SELECT_CONTROL = f"""
    {_SELECT_OTHER_DELIVERED} AND orchestrator = :orchestrator AND settled_at <= :first
    AND pipeline = :pipeline AND model = :model ORDER BY settled_at DESC LIMIT 1
"""
_SELECT_OTHER_CONTROL = f"""
    {_SELECT_OTHER_DELIVERED} AND orchestrator = :orchestrator AND settled_at <= :first
    AND model != '' ORDER BY settled_at DESC LIMIT 1
"""
_SELECT_WITNESS = f"{_SELECT_OTHER_DELIVERED} AND model != '' ORDER BY seq DESC LIMIT 1"
_SELECT_LATER = """
    SELECT settled_at FROM outbox WHERE state = 'delivered' AND seq != :seq AND first_sent_at > :last
    ORDER BY seq DESC LIMIT 1
"""
_RANKED_IN_TICK = """(
    SELECT *, row_number() OVER (PARTITION BY tick ORDER BY audited_at IS NULL, random()) AS place
    FROM outbox WHERE state = 'delivered' AND settled_at BETWEEN ? AND ?
)"""
_SELECT_DUE_AUDITS = select_statement(_COLUMNS, _RANKED_IN_TICK) + " WHERE place <= ? AND audited_at IS NULL LIMIT ?"
_MARK_AUDITED = "UPDATE outbox SET audited_at = ? WHERE seq = ?"
_REPOST_LOST = """
    UPDATE outbox SET state = 'pending', due_at = 0, settled_at = NULL, created_at = ?, problem = ?, audited_at = NULL
    WHERE seq = ? AND state = 'delivered'
"""
_EXPIRE = """
    UPDATE outbox SET state = 'expired', settled_at = ?, problem = 'older than delivery.max_age'
    WHERE state = 'pending' AND created_at < ?
"""
_SELECT_NEXT_DUE = """
    SELECT (SELECT min(due_at) FROM outbox WHERE state = 'pending'),
        (SELECT min(due_at) FROM outbox WHERE state = 'uncertain')
"""
_COUNT_WAITING = "SELECT count(*) FROM outbox WHERE state IN ('pending', 'sending', 'uncertain')"
_SELECT_OLDEST_WAITING = "SELECT min(created_at) FROM outbox WHERE state IN ('pending', 'sending', 'uncertain')"
_COUNT_STATES = "SELECT state, count(*) FROM outbox GROUP BY state"
_COUNT_STATES_OF_TICK = "SELECT state, count(*) FROM outbox WHERE tick = ? GROUP BY state"
_SELECT_IN_STATES = f"{_SELECT} WHERE state IN {_LIST} AND seq > ? ORDER BY seq LIMIT ?"
_RETRY_UNCERTAIN = """
    UPDATE outbox SET state = 'pending', maybe_double = 1, due_at = :now, created_at = :now, settled_at = NULL,
        problem = ''
    WHERE state = 'uncertain' AND seq IN (SELECT value FROM json_each(:seqs))
"""
_RETRY_SENT = """
    UPDATE outbox SET state = 'uncertain', due_at = :now, created_at = :now, settled_at = NULL, problem = ''
    WHERE state = 'dropped' AND attempts > 0 AND (:seqs IS NULL OR seq IN (SELECT value FROM json_each(:seqs)))
"""
_RETRY_REST = """
    UPDATE outbox SET state = 'pending', due_at = :now, created_at = :now, settled_at = NULL, problem = ''
    WHERE state IN ('refused', 'expired', 'dropped')
        AND (:seqs IS NULL OR seq IN (SELECT value FROM json_each(:seqs)))
"""
_DROP = """
    UPDATE outbox SET state = 'dropped', settled_at = :now
    WHERE state NOT IN ('delivered', 'sending', 'dropped')
        AND (:seqs IS NULL OR seq IN (SELECT value FROM json_each(:seqs)))
"""


class Outbox:
    """Holds the stats that are to be posted; every change of state is one transaction.

    It has more than 15 methods because delivery, reconciliation, audit and commands change the same states.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Work on an open database; the clock returns Unix seconds."""
        self._database = database
        self._clock = clock

    async def recover(self, *, hold: bool = True) -> int:
        """Make uncertain what an earlier process was sending when it died, and return the number of these entries.

        What it held becomes suspect or pending, by the same rule as at the end of a tick. If `hold` is False, all of it
        becomes pending.
        """
        now = self._clock()

        def work(db: sqlite3.Connection) -> int:
            detectors: dict[tuple[str, str], SuspectDetector] = {}
            for tick, gateway, outcome, reason, jobs in db.execute(_COUNT_HELD_OUTCOMES).fetchall():
                detectors.setdefault((tick, gateway), SuspectDetector()).add(Outcome(outcome), reason, jobs)
            if hold:
                db.executemany(_SUSPECT_HELD, [key for key, detector in detectors.items() if detector.is_suspect])
            db.execute(_RELEASE_HELD)
            return db.execute(_DOUBT_SENDING, (now,)).rowcount

        return await self._database.write(work)

    async def claim(self, limit: int) -> list[OutboxEntry]:
        """Mark the oldest due entries as being sent, before any byte of them leaves, and return them."""
        now = self._clock()
        values = {"now": now, "soon": now + 1e-6, "too_late": now + _MAX_WAIT_S, "limit": limit}

        def work(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
            seqs = [seq for (seq,) in db.execute(_CLAIM, values).fetchall()]
            return db.execute(_SELECT_CLAIMED, (_json(seqs),)).fetchall()

        return [_entry(row) for row in await self._database.write(work)]

    async def apply(self, changes: Sequence[StateChange]) -> None:
        """Change the states of entries, but not of those that a person has dropped in the meantime."""
        # What was being sent has left by now at the latest: a claimed stat may wait for its turn, so only this instant
        # says from when on a miss can be believed. A sending instant later than now is from before the clock was set
        # back; the stat is looked for from now on.
        now = self._clock()
        values = [asdict(change) | {"now": now} for change in changes]
        await self._database.write(lambda db: db.executemany(_APPLY, values))

    async def due_look_ups(self, limit: int) -> list[OutboxEntry]:
        """Return uncertain entries that are due to be looked up, the longest due first."""
        now = self._clock()
        return await self._read(_SELECT_LOOK_UPS, now + 1e-6, now + _MAX_LOOK_UP_WAIT_S, limit)

    async def neighbors(self, entry: OutboxEntry) -> Neighbors:
        """Return the delivered stats against which an answer about `entry` is checked.

        A control was delivered before `entry` was first sent, so every complete answer that could show `entry` shows it
        too, and further down, since rows come newest first. One of the same capability is preferred: the question about
        it is smaller.
        """
        first, last = entry.first_sent_at or entry.created_at, entry.last_sent_at or entry.created_at
        values = asdict(entry) | {"first": first, "last": last}

        def work(db: sqlite3.Connection) -> Neighbors:
            control = db.execute(_SELECT_CONTROL, values).fetchone()
            if control is None and entry.model:
                control = db.execute(_SELECT_OTHER_CONTROL, values).fetchone()
            witness = db.execute(_SELECT_WITNESS, values).fetchone()
            # Only a stat that was answered shows that the database takes rows; the `settled_at` of one that a look-up
            # found is later than its storing, which errs on the safe side.
            later = db.execute(_SELECT_LATER, values).fetchone()
            return Neighbors(
                _entry(control) if control is not None else None,
                _entry(witness) if witness is not None else None,
                later[0] if later is not None else None,
            )

        return await self._database.read(work)

    async def due_audits(self, per_tick: int, *, older_s: float, newer_s: float) -> list[OutboxEntry]:
        """Return delivered stats to read back: at random, at most `per_tick` of each tick that were never read back.

        Only those delivered more than `older_s` and less than `newer_s` seconds ago.
        """
        now = self._clock()
        return await self._read(_SELECT_DUE_AUDITS, now - newer_s, now - older_s, per_tick, _MAX_AUDITS)

    async def record_audit(self, seq: int, *, lost: str = "") -> None:
        """Record that a delivered stat was read back; if it is `lost`, and why, make it pending once more.

        After that it is read back again.
        """
        now = self._clock()
        statement, values = (_REPOST_LOST, (now, lost, seq)) if lost else (_MARK_AUDITED, (now, seq))
        await self._database.write(lambda db: db.execute(statement, values))

    async def expire(self, max_age_s: float) -> int:
        """Mark pending stats older than `max_age_s` seconds as expired, and return their number."""
        # The Leaderboard would date them by their arrival.
        now = self._clock()
        return await self._database.write(lambda db: db.execute(_EXPIRE, (now, now - max_age_s)).rowcount)

    async def next_due(self) -> DueTimes:
        """Return when the next entries are due."""
        (row,) = await self._database.read_rows(_SELECT_NEXT_DUE)
        return DueTimes(*row)

    async def count_waiting(self) -> int:
        """Return the number of entries that may still be posted without a person's help."""
        ((count,),) = await self._database.read_rows(_COUNT_WAITING)
        return int(count)

    async def counts(self, tick: str = "") -> dict[str, int]:
        """Return the number of entries by state, every state included; of one tick, or of all."""
        rows = await self._database.read_rows(*(_COUNT_STATES_OF_TICK, (tick,)) if tick else (_COUNT_STATES, ()))
        return dict.fromkeys(STATES, 0) | dict(rows)

    async def oldest_age_s(self, now: float) -> float:
        """Return the age in seconds of the oldest stat that waits, 0 if none does."""
        ((created_at,),) = await self._database.read_rows(_SELECT_OLDEST_WAITING)
        return max(0.0, now - created_at) if created_at is not None else 0.0

    async def entries(self, states: tuple[str, ...] = (), limit: int = 200, *, after: int = 0) -> list[OutboxEntry]:
        """Return entries in these states (empty: all but delivered) with a seq above `after`, oldest first."""
        states = states or tuple(state for state in STATES if state != "delivered")
        return await self._read(_SELECT_IN_STATES, _json(states), after, limit)

    async def retry(self, seqs: list[int] | None = None) -> RetryCounts:
        """Queue refused, expired or dropped entries again, because a person decided so; None means all.

        A dropped one that had been sent is looked up first. An uncertain one is posted at once if it is in `seqs`: the
        person accepts that it may then count twice.
        """
        values = {"now": self._clock(), "seqs": _json(seqs) if seqs is not None else None}

        def work(db: sqlite3.Connection) -> RetryCounts:
            double = db.execute(_RETRY_UNCERTAIN, values).rowcount if seqs is not None else 0
            looked_up = db.execute(_RETRY_SENT, values).rowcount
            posted = db.execute(_RETRY_REST, values).rowcount
            return RetryCounts(posted + double, looked_up, double)

        return await self._database.write(work)

    async def drop(self, seqs: list[int] | None = None) -> int:
        """Drop entries, because a person decided so, and return their number; None means all. Their results stay."""
        values = {"now": self._clock(), "seqs": _json(seqs) if seqs is not None else None}
        return await self._database.write(lambda db: db.execute(_DROP, values).rowcount)

    async def _read(self, statement: str, *values: Any) -> list[OutboxEntry]:
        return [_entry(row) for row in await self._database.read_rows(statement, values)]


def _json(values: Sequence[int] | Sequence[str]) -> str:
    return orjson.dumps(values).decode()


def _entry(row: tuple[Any, ...]) -> OutboxEntry:
    values = dict(zip(_COLUMNS, row, strict=True))
    return OutboxEntry(**values | {"maybe_double": bool(values["maybe_double"])})
