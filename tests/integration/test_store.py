"""The store's file: earlier versions are migrated with all rows, newer ones left alone, old rows deleted."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import orjson
import pytest

from jobtester.domain.external_results import parse_results
from jobtester.domain.reasons import Note, Verdict
from jobtester.domain.stats import Stat
from jobtester.errors import StoreError
from jobtester.store import database_file
from jobtester.store.database import Database
from jobtester.store.migrations import STEPS, VERSION
from jobtester.store.outbox import STATES, Outbox, OutboxEntry, StateChange
from jobtester.store.queries import Queries, ResultFilters
from jobtester.store.results import RESULT_COLUMNS, ResultRow, Results
from jobtester.store.retention import Retention
from jobtester.store.ticks import TickRow, Ticks
from tests.harness.receiver import AI_STAT
from tests.harness.store import NOW, make_result, open_database, record_results

DAY = 86_400.0
SHIPPED = ("10b639", "b728dd", "02bd90")


ADDED = {
    ("results", "notes"),
    ("outbox", "looks"),
    ("outbox", "look_ups"),
    ("outbox", "audited_at"),
    ("results", "details"),
    ("results", "kind"),
    ("results", "runner"),
    ("latest", "kind"),
}  # columns that came with a later step
RENAMED = {"orchestrator": "address", "artifact_s": "artefact_s", "estimated_price_wei": "price_wei"}  # by step 6


def columns_before(table: str, names: Iterable[str], version: int) -> str:
    """Return the columns that a table had in the first version, under the names they had in another one."""
    first = [name for name in names if (table, name) not in ADDED]
    return ", ".join(first if version >= 6 else [RENAMED.get(name, name) for name in first])


def dump_rows(path: Path, tables: Sequence[str]) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of some tables, without the columns that a later step added."""
    rows_of = {}
    with closing(sqlite3.connect(path)) as db:
        for table in tables:
            columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})") if (table, name) not in ADDED]
            rows = db.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
            rows_of[table] = sorted(rows, key=repr)
    return rows_of


def schema(path: Path) -> list[tuple[str, str, str]]:
    """Return the schema as SQLite knows it."""
    with closing(sqlite3.connect(path)) as db:
        return sorted(db.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master").fetchall())


def write_earlier_version(path: Path, version: int) -> None:
    """Create the file of an earlier version, with rows of every kind."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        for step in STEPS[:version]:
            db.executescript(step)
        db.execute(f"PRAGMA user_version = {version}")
        if not version:
            return
        for number, state in enumerate(("finished", "aborted", "failed", "suspect", "running")):
            finished = None if state == "running" else NOW
            report = '{"planned": 1, "estimated_price_wei": ' + "9" * 30 + "}"
            row = (f"t{number}", NOW + number, finished, number, "clock", state, report)
            db.execute("INSERT INTO ticks VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        verdicts = [("passed", "ok"), ("failed", "503"), ("failed", "check:image"), ("unscored", "busy")]
        for number, (outcome, reason) in enumerate(verdicts * 3):
            names = columns_before("results", RESULT_COLUMNS, version)
            db.execute(
                f"INSERT INTO results ({names}) VALUES (?, ?, 't0', ?, 'https://a', 'llm', 'Llm', ?, 1,"
                " ?, ?, 'm', 'proven', '[\"line\"]', 'g', 'query', 1.5, 2.5, 0.1, NULL, NULL,"
                " '{\"first_token_s\": 0.1}', 0, ?, '{}', 'ü')",
                (number + 1, f"r{number}", f"0x{number % 4}", f"m{number % 2}", outcome, reason,
                 ("9" * 25, None)[number % 2]),
            )  # fmt: skip
        for number in range(4):
            kind_column, kind = ("kind,", "'batch',") if version >= 7 else ("", "")
            db.execute(
                f"INSERT INTO latest ({columns_before('latest', ('orchestrator',), version)}, service_uri, pipeline,"
                f" model, {kind_column} seq, mean_s, unscored_streak)"
                f" VALUES (?, 'https://a', 'llm', 'm0', {kind} ?, 0.1, 2)",
                (f"0x{number}", number + 9),
            )
        outbox = columns_before("outbox", OutboxEntry.__dataclass_fields__, version)
        for number, state in enumerate(STATES):
            db.execute(
                f"INSERT INTO outbox ({outbox}) VALUES (NULL, ?, 't0', 'g', ?, x'7b7d', 'FRA', '0x1', 'Llm', 'm', 1,"
                " 0.1, 1, 2, 3, NULL, 4.5, ?, 'why', 1)",
                (f"r{number}", state, 5.0 if state in ("delivered", "refused", "expired", "dropped") else None),
            )  # fmt: skip
        for number, kind in enumerate(("ai", "transcoding")):
            db.execute("INSERT INTO received VALUES (?, 'd', 1.0, '10.0.0.1', ?, '{}')", (f"received-{number}", kind))
        db.execute("INSERT INTO pulse VALUES (1, 1.0)")


TABLES = ("ticks", "results", "latest", "outbox", "received")


def test_steps_that_were_shipped_never_change() -> None:
    """A file of an earlier version has been through exactly these steps; a new step comes behind them."""
    digests = tuple(hashlib.sha256(step.encode()).hexdigest()[:6] for step in STEPS)
    assert digests[: len(SHIPPED)] == SHIPPED


@pytest.mark.parametrize("version", range(VERSION + 1))
async def test_an_earlier_file_is_migrated(version: int, tmp_path: Path) -> None:
    """From every version, an empty file included: the schema of a new file, every row unchanged, and all readable."""
    path = tmp_path / "old.db"
    write_earlier_version(path, version)
    before = dump_rows(path, TABLES) if version else {}
    async with open_database(tmp_path / "new.db"):
        pass
    async with open_database(path) as database:
        results, queries = Results(database), Queries(database)
        outbox, ticks = Outbox(database), Ticks(database)
        assert len(await queries.page(ResultFilters())) == (12 if version else 0)
        assert sum((await outbox.counts()).values()) == (len(STATES) if version else 0)
        assert len(await ticks.newest(10)) == (5 if version else 0)
        assert len(await queries.external_results(before=None, limit=9)) == (2 if version else 0)
        assert len(await queries.latest()) == (4 if version else 0)
        await results.record(make_result(), Stat.from_result(make_result(), "FRA"))
        assert len(await queries.page(ResultFilters(model="m", outcome="passed"))) == 1
        await results._database.write(lambda db: db.execute("DELETE FROM results WHERE model = 'm'"))
        await results._database.write(lambda db: db.execute("DELETE FROM latest WHERE model = 'm'"))
        await results._database.write(lambda db: db.execute("DELETE FROM outbox WHERE timestamp > 1"))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert schema(path) == schema(tmp_path / "new.db")
    if version:
        assert dump_rows(path, TABLES) == before


async def test_earlier_results_get_their_kind(tmp_path: Path) -> None:
    """By how the job was sent, and by the pipeline's name; the newest result of each has the same."""
    path = tmp_path / "old.db"
    write_earlier_version(path, 6)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE results SET pipeline = 'someone/app', targeting = 'direct' WHERE orchestrator = '0x1'")
        db.execute("UPDATE results SET pipeline = 'someone/app' WHERE orchestrator = '0x2'")
        db.commit()
    async with open_database(path) as database:
        rows = await Queries(database).page(ResultFilters())
        latest = await Queries(database).latest()
    kinds = {"0x0": "batch", "0x1": "live-runner", "0x2": "byoc", "0x3": "batch"}
    assert {row.orchestrator: row.kind for row in rows} == kinds
    assert {row.orchestrator: row.kind for row, _ in latest} == kinds
    assert {row.runner.get("mode") for row in rows} == {None}


async def test_notes_are_recorded_with_their_result(tmp_path: Path) -> None:
    """They are returned unchanged, but with lone surrogates replaced."""
    note = Note("chat", "usage", "3 + 4 is not \ud800 8")
    async with open_database(tmp_path / "new.db") as database:
        results, queries = Results(database), Queries(database)
        await results.record(replace(make_result(), notes=(note,)), None)
        (row,) = await queries.page(ResultFilters())
    assert row.notes == ({"check": "chat", "note": "usage", "message": "3 + 4 is not ? 8"},)


async def test_a_failed_step_leaves_the_file_unchanged(tmp_path: Path) -> None:
    """Each step is one transaction, and the message names the file."""
    path = tmp_path / "old.db"
    write_earlier_version(path, 2)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE INDEX results_model ON results (model)")  # the third step's last
    before, rows = schema(path), dump_rows(path, TABLES)
    with pytest.raises(StoreError, match=r"old\.db cannot be used: .*results_model"):
        async with open_database(path):
            pass
    assert (schema(path), dump_rows(path, TABLES)) == (before, rows)


def test_many_may_open_an_earlier_file_at_once(tmp_path: Path) -> None:
    """The daemon and commands beside it: one takes the steps, the others skip them."""
    for attempt in range(10):
        path = tmp_path / f"{attempt}.db"
        write_earlier_version(path, attempt % VERSION)
        ready = Barrier(6)

        def open_file(path: Path = path, ready: Barrier = ready) -> None:
            ready.wait()
            database_file.open_database(path, owner=False).close()

        with ThreadPoolExecutor(6) as pool:
            for future in [pool.submit(open_file) for _ in range(6)]:
                future.result()


async def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    """By the owner and by commands, with a message that says what to do; not a byte changes."""
    path = tmp_path / "newer.db"
    write_earlier_version(path, VERSION)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    for owner in (True, False):
        with pytest.raises(StoreError) as caught:
            await Database(path).open(owner=owner)
        expected = f"{path} has version {VERSION + 1}, this program supports up to {VERSION}"
        assert expected in str(caught.value)
        assert "use the newer program" in str(caught.value)
    assert path.read_bytes() == before
    assert await asyncio.to_thread(lambda: list(tmp_path.glob("*damaged*"))) == []


async def test_only_old_and_settled_rows_are_deleted(tmp_path: Path) -> None:
    """Of results of 40 days ago, those without a stat or with a settled one are deleted; of yesterday's, none."""
    settled = ("", "delivered", "refused", "expired", "dropped")
    async with open_database(tmp_path / "a.db") as database:
        for age in (40, 1):
            for state in ("", *STATES):
                result = make_result(tick=f"{age}-{state}")
                await Ticks(database).start(result.job.tick, NOW - age * DAY, 1, "clock")
                await record_results(database, NOW - age * DAY, result, state=state)
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW) == len(settled)
        remaining = {row.tick for row in await Queries(database).page(ResultFilters())}
        assert remaining == {f"1-{state}" for state in ("", *STATES)} | {
            f"40-{state}" for state in {*STATES} - {*settled}
        }
        assert {tick.id for tick in await Ticks(database).newest(100)} == remaining
        assert len(await Outbox(database).entries(STATES)) == len(remaining) - 1
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW) == 0


async def test_a_stat_that_was_settled_recently_keeps_its_result(tmp_path: Path) -> None:
    """A result of 40 days ago whose stat was delivered yesterday stays as long as its stat."""
    async with open_database(tmp_path / "a.db") as database:
        old = make_result()
        await Results(database, lambda: NOW - 40 * DAY).record(old, Stat.from_result(old, "FRA"))
        (entry,) = await Outbox(database).entries()
        await Outbox(database, lambda: NOW - DAY).apply([StateChange(entry.seq, "delivered")])
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW) == 0
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW + 30 * DAY) == 1


async def test_other_testers_results_are_deleted_too(tmp_path: Path) -> None:
    """However many; but none whose stat waits, and none by which a repeat of the last day is recognized."""
    async with open_database(tmp_path / "a.db") as database:
        results, old = Results(database, lambda: NOW - 40 * DAY), Results(database, lambda: NOW - DAY / 2)
        bodies = [orjson.dumps(AI_STAT | {"timestamp": number}) for number in range(1_203)]
        many = orjson.dumps([orjson.Fragment(body) for body in bodies[3:]])
        await results.record_external(many, "x", parse_results(many))
        await Outbox(database, lambda: NOW - 40 * DAY).drop()
        await results.record_external(bodies[0], "x", parse_results(bodies[0]))
        await old.record_external(bodies[1], "x", parse_results(bodies[1]))
        await Retention(database).run(keep_s=30 * DAY, now=NOW)
        remaining = await Queries(database).external_results(before=None, limit=9_999)
        assert [orjson.loads(row.stat)["timestamp"] for row in remaining] == [1, 0]
        assert len(await Outbox(database).entries(STATES)) == 2
        await database.write(lambda db: db.execute("UPDATE outbox SET state = 'delivered', settled_at = 1"))
        await Retention(database).run(keep_s=60, now=NOW)
        assert not await Results(database, lambda: NOW).record_external(bodies[1], "x", parse_results(bodies[1]))
        assert await Results(database, lambda: NOW).record_external(bodies[0], "x", parse_results(bodies[0]))


async def test_the_file_shrinks(tmp_path: Path) -> None:
    """All of the free room goes back to the disk, and what stays is intact."""
    path = tmp_path / "a.db"
    async with open_database(path) as database:
        bulk = [make_result(number=number, response='"' + "x" * 20_000 + '"') for number in range(300)]
        await record_results(database, NOW - 40 * DAY, *bulk, state="delivered")
        await record_results(database, NOW, make_result(number=5))
    before = path.stat().st_size
    async with open_database(path) as database:
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW) == 300
    assert before > 6 * 2**20
    assert path.stat().st_size < 2**20
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA freelist_count").fetchone() == (0,)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM results").fetchone() == (1,)


async def test_a_file_that_cannot_shrink_does_not_hang(tmp_path: Path) -> None:
    """A copy without auto_vacuum keeps its size, and the clean-up ends."""
    path, copy = tmp_path / "a.db", tmp_path / "b.db"
    async with open_database(path) as database:
        await record_results(
            database, NOW - 40 * DAY, *(make_result(response='"' + "x" * 9_000 + '"') for _ in range(50))
        )
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = NONE")
        db.execute(f"VACUUM INTO '{copy}'")
    async with open_database(copy) as database, asyncio.timeout(30):
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW) == 50


async def test_retention_leaves_latest_consistent(tmp_path: Path) -> None:
    """Capabilities without results disappear; newest result, usual duration and streak of others stay the same."""
    async with open_database(tmp_path / "a.db") as database:
        results, queries = Results(database), Queries(database)
        await record_results(database, NOW - 40 * DAY, make_result(number=1))
        await record_results(database, NOW - 40 * DAY, make_result(number=2))
        for code in ("busy", "busy", "ok", "busy"):
            await record_results(database, NOW - DAY, make_result(code, number=2))
        before = {row.orchestrator: (row, streak) for row, streak in await queries.latest()}
        durations = await results.durations()
        await Retention(database).run(keep_s=30 * DAY, now=NOW)
        after = {row.orchestrator: (row, streak) for row, streak in await queries.latest()}
        two = f"0x{2:040x}"
        assert after == {two: before[two]}
        assert after[two][1] == 1
        assert await results.durations() == {key: value for key, value in durations.items() if key[0] == two}
        (cell,) = await Queries(database).matrix()
        assert [point.reason for point in cell.recent] == ["busy", "busy", "ok", "busy"]


def test_rows_have_the_columns_of_their_tables(tmp_path: Path) -> None:
    """A dataclass is the only list of a table's columns in the code, and it agrees with the migrated table."""
    path = tmp_path / "a.db"
    database_file.open_database(path, owner=True).close()
    with closing(sqlite3.connect(path)) as db:
        for table, row_type in (("results", ResultRow), ("outbox", OutboxEntry), ("ticks", TickRow)):
            columns = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
            # Of a result, one column is read only for the page of one.
            assert columns - {"details"} == set(row_type.__dataclass_fields__), table


async def test_results_of_one_group_are_each_recorded_once(tmp_path: Path) -> None:
    """Of a job's results the first stands and its stat is queued once; `latest` follows the order of recording."""
    codes = ("ok", "busy", "busy", "ok", "busy", "503")
    first = [make_result(code, number=number % 3 + 1) for number in range(12) for code in codes]
    repeats = [replace(result, verdict=Verdict.from_code("503")) for result in first[::5]]
    async with open_database(tmp_path / "s.db") as database:
        results, queries = Results(database, clock=lambda: NOW), Queries(database)
        recorded = await asyncio.gather(
            *(results.record(result, Stat.from_result(result, "FRA")) for result in [*first, *repeats, *first])
        )
        assert recorded == [True] * len(first) + [False] * (len(repeats) + len(first))
        newest = {row.orchestrator: (row, streak) for row, streak in await queries.latest()}
        page = await queries.page(ResultFilters(), limit=1_000)
        entries = await Outbox(database).entries()
    assert [row.id for row in reversed(page)] == [result.id for result in first]
    assert [row.reason for row in reversed(page)] == [result.verdict.code for result in first]
    assert [entry.result for entry in entries] == [result.id for result in first]
    assert {row.reason for row, _ in newest.values()} == {"503"}
    assert [streak for _, streak in newest.values()] == [0, 0, 0]


async def test_a_cursor_does_not_leave_the_writing_thread(tmp_path: Path) -> None:
    """Deleted in another thread it would reset a statement that the writing thread may be running again."""
    async with open_database(tmp_path / "s.db") as database:
        cursors: list[sqlite3.Cursor] = []

        def work(db: sqlite3.Connection) -> sqlite3.Cursor:
            cursors.append(db.execute("SELECT seq FROM outbox"))
            return cursors[-1]

        assert await database.write(work) is None
        with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
            await database.write(lambda _: cursors[-1].fetchall())


async def test_a_write_that_fails_leaves_the_rest_of_its_group(tmp_path: Path) -> None:
    """A value that SQLite cannot store fails alone; the other writes of the group are committed."""
    group = [make_result() for _ in range(9)]
    group[4] = replace(group[4], status=2**70)
    async with open_database(tmp_path / "s.db") as database:
        results, queries = Results(database, clock=lambda: NOW), Queries(database)
        answers = await asyncio.gather(*(results.record(result, None) for result in group), return_exceptions=True)
        page = await queries.page(ResultFilters(), limit=100)
    assert [answer is True for answer in answers] == [number != 4 for number in range(9)]
    assert isinstance(answers[4], OverflowError)
    assert [row.id for row in reversed(page)] == [result.id for result in group if result is not group[4]]
