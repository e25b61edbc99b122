"""The store's file: earlier ones brought up to date with all they hold, newer ones left alone, old rows cleaned up."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
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

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.external_results import parse_results
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Note, Verdict
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.errors import StoreError
from jobtester.store import database_file
from jobtester.store.database import Database
from jobtester.store.migrations import STEPS, VERSION
from jobtester.store.outbox import STATES, Outbox, OutboxEntry, StateChange
from jobtester.store.queries import Queries, ResultFilters, build_page_query
from jobtester.store.results import RESULT_COLUMNS, ResultRow, Results
from jobtester.store.retention import Retention
from jobtester.store.ticks import TickRow, Ticks
from tests.harness.receiver import AI_STAT
from tests.harness.store import open_database

NOW = 1.8e9
DAY = 86_400.0
SHIPPED = ("10b639", "b728dd", "02bd90")
_NUMBERS = itertools.count()


def make_result(code: str = "ok", *, who: int = 1, model: str = "m", tick: str = "t", response: str = "{}") -> Result:
    """Make a result of a reason."""
    return Result(
        Job(
            f"job-{next(_NUMBERS)}", tick, Orchestrator(f"0x{who:040x}", f"https://o{who}.example:8935"),
            Capability("llm", model, warm=True), "Llm", 10.0, 1.0, 10**20,
        ),
        Verdict.from_code(code), Attribution(AttributionKind.PROVEN, ("metric: moved",)), "g", "query", NOW, 0.25, 200,
        response=response,
    )  # fmt: skip


ADDED = {
    ("results", "notes"),
    ("outbox", "looks"),
    ("outbox", "look_ups"),
    ("outbox", "audited_at"),
}  # columns that came with a later step
RENAMED = {"orchestrator": "address", "artifact_s": "artefact_s", "estimated_price_wei": "price_wei"}  # by step 6


def columns_before(table: str, names: Iterable[str], version: int) -> str:
    """Return the columns that a table had in the first version, under the names they had in another one."""
    first = [name for name in names if (table, name) not in ADDED]
    return ", ".join(first if version >= 6 else [RENAMED.get(name, name) for name in first])


def dump_rows(path: Path, tables: Sequence[str]) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of some tables, without the columns that a later step added."""
    found = {}
    with closing(sqlite3.connect(path)) as db:
        for table in tables:
            columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})") if (table, name) not in ADDED]
            rows = db.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
            found[table] = sorted(rows, key=repr)
    return found


def shape(path: Path) -> list[tuple[str, str, str]]:
    """Return the schema as SQLite knows it."""
    with closing(sqlite3.connect(path)) as db:
        return sorted(db.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master").fetchall())


def write_earlier_version(path: Path, version: int) -> None:
    """Make a file as the program of an earlier version left it, with rows of every kind."""
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
        came = [("passed", "ok"), ("failed", "503"), ("failed", "check:image"), ("unscored", "busy")]
        for number, (how, why) in enumerate(came * 3):
            names = columns_before("results", RESULT_COLUMNS, version)
            db.execute(
                f"INSERT INTO results ({names}) VALUES (?, ?, 't0', ?, 'https://a', 'llm', 'Llm', ?, 1,"
                " ?, ?, 'm', 'proven', '[\"line\"]', 'g', 'query', 1.5, 2.5, 0.1, NULL, NULL,"
                " '{\"first_token_s\": 0.1}', 0, ?, '{}', 'ü')",
                (number + 1, f"r{number}", f"0x{number % 4}", f"m{number % 2}", how, why, ("9" * 25, None)[number % 2]),
            )  # fmt: skip
        for number in range(4):
            db.execute(
                "INSERT INTO latest VALUES (?, 'https://a', 'llm', 'm0', ?, 0.1, 2)", (f"0x{number}", number + 9)
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
    """A file of an earlier version has been through exactly these; a new step comes behind them."""
    digests = tuple(hashlib.sha256(step.encode()).hexdigest()[:6] for step in STEPS)
    assert digests[: len(SHIPPED)] == SHIPPED


@pytest.mark.parametrize("version", range(VERSION + 1))
async def test_an_earlier_file_is_brought_up_to_date(version: int, tmp_path: Path) -> None:
    """From every version, an empty file included: the shape of a new file, every row as it was, and all readable."""
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
    assert shape(path) == shape(tmp_path / "new.db")
    if version:
        assert dump_rows(path, TABLES) == before


async def test_notes_are_kept_with_their_result(tmp_path: Path) -> None:
    """They come back as they were, lone halves of characters replaced."""
    note = Note("chat", "usage", "3 + 4 is not \ud800 8")
    async with open_database(tmp_path / "new.db") as database:
        results, queries = Results(database), Queries(database)
        await results.record(replace(make_result(), notes=(note,)), None)
        (row,) = await queries.page(ResultFilters())
    assert row.notes == ({"check": "chat", "note": "usage", "message": "3 + 4 is not ? 8"},)


async def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """Each step is taken as a whole or not at all, and the message names the file."""
    path = tmp_path / "old.db"
    write_earlier_version(path, 2)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE INDEX results_model ON results (model)")  # the third step's last
    before, rows = shape(path), dump_rows(path, TABLES)
    with pytest.raises(StoreError, match=r"old\.db cannot be used: .*results_model"):
        async with open_database(path):
            pass
    assert (shape(path), dump_rows(path, TABLES)) == (before, rows)


def test_many_may_open_an_earlier_file_at_once(tmp_path: Path) -> None:
    """The daemon and commands beside it: one takes the steps, the others find them taken."""
    for attempt in range(10):
        path = tmp_path / f"{attempt}.db"
        write_earlier_version(path, attempt % VERSION)
        ready = Barrier(6)

        def open_it(path: Path = path, ready: Barrier = ready) -> None:
            ready.wait()
            database_file.open_database(path, owner=False).close()

        with ThreadPoolExecutor(6) as pool:
            for one in [pool.submit(open_it) for _ in range(6)]:
                one.result()


async def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    """By the owner and by commands, with a message that says what to do; not a byte of it changes."""
    path = tmp_path / "newer.db"
    write_earlier_version(path, VERSION)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = path.read_bytes()
    for owner in (True, False):
        with pytest.raises(StoreError) as caught:
            await Database(path).open(owner=owner)
        known = f"{path} has version {VERSION + 1}, this program supports up to {VERSION}"
        assert known in str(caught.value)
        assert "use the newer program" in str(caught.value)
    assert path.read_bytes() == before
    assert await asyncio.to_thread(lambda: [one for one in tmp_path.iterdir() if "damaged" in one.name]) == []


async def record_results(database: Database, at: float, *found: Result, state: str = "") -> None:
    """Record results at an instant; their stats, if they get any, come into a state at that instant too."""
    results, outbox = Results(database, lambda: at), Outbox(database, lambda: at)
    await asyncio.gather(*(results.record(one, Stat.from_result(one, "FRA") if state else None) for one in found))
    if state in ("delivered", "refused"):
        entries = {entry.result: entry.seq for entry in await outbox.entries(("pending",), limit=100_000)}
        await outbox.apply([StateChange(entries[one.id], state) for one in found])  # type: ignore[arg-type]
    elif state:
        ids = orjson.dumps([one.id for one in found]).decode()
        settled = at if state in ("expired", "dropped") else None
        await database.write(
            lambda db: db.execute(
                "UPDATE outbox SET state = ?, settled_at = ? WHERE result IN (SELECT value FROM json_each(?))",
                (state, settled, ids),
            )
        )


async def test_only_what_is_old_and_settled_goes(tmp_path: Path) -> None:
    """Of results of 40 days ago, those go that were never to be posted or are settled; of yesterday's, none."""
    settled = ("", "delivered", "refused", "expired", "dropped")
    async with open_database(tmp_path / "a.db") as database:
        for age in (40, 1):
            for state in ("", *STATES):
                found = make_result(tick=f"{age}-{state}")
                await Ticks(database).start(found.job.tick, NOW - age * DAY, 1, "clock")
                await record_results(database, NOW - age * DAY, found, state=state)
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW) == len(settled)
        left = {row.tick for row in await Queries(database).page(ResultFilters())}
        assert left == {f"1-{state}" for state in ("", *STATES)} | {f"40-{state}" for state in {*STATES} - {*settled}}
        assert {tick.id for tick in await Ticks(database).newest(100)} == left
        assert len(await Outbox(database).entries(STATES)) == len(left) - 1
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW) == 0


async def test_what_was_settled_lately_stays_with_its_result(tmp_path: Path) -> None:
    """A result of 40 days ago whose stat was delivered yesterday is kept as long as its stat."""
    async with open_database(tmp_path / "a.db") as database:
        old = make_result()
        await Results(database, lambda: NOW - 40 * DAY).record(old, Stat.from_result(old, "FRA"))
        (entry,) = await Outbox(database).entries()
        await Outbox(database, lambda: NOW - DAY).apply([StateChange(entry.seq, "delivered")])
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW) == 0
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW + 30 * DAY) == 1


async def test_other_testers_results_go_as_well(tmp_path: Path) -> None:
    """However many; but none whose stat waits, and none by which a repeat of the last day is known."""
    async with open_database(tmp_path / "a.db") as database:
        results, old = Results(database, lambda: NOW - 40 * DAY), Results(database, lambda: NOW - DAY / 2)
        bodies = [orjson.dumps(AI_STAT | {"timestamp": number}) for number in range(1_203)]
        many = orjson.dumps([orjson.Fragment(body) for body in bodies[3:]])
        await results.record_external(many, "x", parse_results(many))
        await Outbox(database, lambda: NOW - 40 * DAY).drop()
        await results.record_external(bodies[0], "x", parse_results(bodies[0]))
        await old.record_external(bodies[1], "x", parse_results(bodies[1]))
        await Retention(database).run(keep_s=30 * DAY, now=NOW)
        left = await Queries(database).external_results(before=None, limit=9_999)
        assert [orjson.loads(one.stat)["timestamp"] for one in left] == [1, 0]
        assert len(await Outbox(database).entries(STATES)) == 2
        await database.write(lambda db: db.execute("UPDATE outbox SET state = 'delivered', settled_at = 1"))
        await Retention(database).run(keep_s=60, now=NOW)
        assert not await Results(database, lambda: NOW).record_external(bodies[1], "x", parse_results(bodies[1]))
        assert await Results(database, lambda: NOW).record_external(bodies[0], "x", parse_results(bodies[0]))


async def test_the_file_shrinks(tmp_path: Path) -> None:
    """All of the room is given back, not a little of it; what stays is whole."""
    path = tmp_path / "a.db"
    async with open_database(path) as database:
        bulk = [make_result(who=number, response='"' + "x" * 20_000 + '"') for number in range(300)]
        await record_results(database, NOW - 40 * DAY, *bulk, state="delivered")
        await record_results(database, NOW, make_result(who=5))
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
    """One that somebody has copied without auto_vacuum keeps its size, and the clean-up ends."""
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


async def test_the_newest_results_stay_right(tmp_path: Path) -> None:
    """Capabilities whose results are all gone disappear; of others newest, usual duration and streak stay the same."""
    async with open_database(tmp_path / "a.db") as database:
        results, queries = Results(database), Queries(database)
        await record_results(database, NOW - 40 * DAY, make_result(who=1))
        await record_results(database, NOW - 40 * DAY, make_result(who=2))
        for code in ("busy", "busy", "ok", "busy"):
            await record_results(database, NOW - DAY, make_result(code, who=2))
        before = {row.orchestrator: (row, streak) for row, streak in await queries.latest()}
        took = await results.durations()
        await Retention(database).run(keep_s=30 * DAY, now=NOW)
        after = {row.orchestrator: (row, streak) for row, streak in await queries.latest()}
        two = f"0x{2:040x}"
        assert after == {two: before[two]}
        assert after[two][1] == 1
        assert await results.durations() == {key: value for key, value in took.items() if key[0] == two}
        (cell,) = await Queries(database).matrix()
        assert [point.reason for point in cell.recent] == ["busy", "busy", "ok", "busy"]


FILTERS: list[tuple[dict[str, str], str]] = [
    ({}, ""), ({"tick": "t1"}, "results_tick"), ({"orchestrator": f"0x{3:040x}"}, "results_capability"),
    ({"model": "m1"}, "results_model"), ({"pipeline": "llm"}, "results_pipeline"),
    ({"pipeline": "none"}, "results_pipeline"),
    ({"outcome": "passed"}, "results_outcome"), ({"outcome": "failed"}, "results_outcome"),
    ({"outcome": "unscored"}, "results_outcome"), ({"reason": "503"}, "results_reason"),
    ({"outcome": "failed", "model": "m0"}, "results_model"), ({"outcome": "passed", "model": "m1"}, "results_model"),
    ({"outcome": "failed", "pipeline": "llm"}, "results_outcome"),
    ({"outcome": "passed", "pipeline": "llm"}, "results_pipeline"),
    ({"reason": "503", "outcome": "failed", "pipeline": "llm"}, "results_reason"),
    ({"orchestrator": f"0x{3:040x}", "model": "m1", "pipeline": "llm", "outcome": "failed"}, "results_capability"),
    ({"tick": "t0", "reason": "busy", "pipeline": "llm"}, "results_tick"),
]  # fmt: skip


async def test_filters_find_what_they_name_and_look_it_up(tmp_path: Path) -> None:
    """Filters, alone and together, give exactly their rows, page by page, by the index with the fewest of a value."""
    codes = ("ok", "ok", "503", "busy", "check:image")
    async with open_database(tmp_path / "a.db") as database:
        results, queries = Results(database), Queries(database)
        for number in range(300):
            one = make_result(codes[number % 5], who=number % 7, model=f"m{number % 3}", tick=f"t{number % 2}")
            await results.record(one, None)
        everything = await queries.page(ResultFilters(), limit=1_000)
        for wanted, index in FILTERS:
            expected = [row.seq for row in everything if all(getattr(row, key) == wanted[key] for key in wanted)]
            found: list[int] = []
            while page := await queries.page(ResultFilters(**wanted), before=found[-1] if found else None, limit=9):
                found += [row.seq for row in page]
            assert found == expected, wanted
            if wanted:
                statement, values = build_page_query(ResultFilters(**wanted), None, 9)
                plan = await database.read(
                    lambda db, sql=statement, values=values: db.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()  # type: ignore[misc]
                )
                assert f"USING INDEX {index} " in str(plan), (wanted, plan)
                assert "TEMP B-TREE" not in str(plan) or "orchestrator" in wanted, (wanted, plan)


async def test_a_page_of_one_service_uri(tmp_path: Path) -> None:
    """An address may have several service URIs; the filter tells them apart, alone and beside other filters."""
    async with open_database(tmp_path / "a.db") as database:
        results, queries = Results(database), Queries(database)
        first, second = make_result(who=1), make_result(who=1)
        moved = replace(first.job.orchestrator, service_uri="https://moved.example:8935")
        second = replace(second, job=replace(second.job, orchestrator=moved))
        for result in (first, second):
            await results.record(result, None)
        for filters in ({}, {"orchestrator": moved.address}):
            rows = await queries.page(ResultFilters(service_uri=moved.service_uri, **filters))
            assert [row.id for row in rows] == [second.id]


def test_rows_have_the_columns_of_their_tables(tmp_path: Path) -> None:
    """A dataclass is the only list of a table's columns in the code, and it agrees with the migrated table."""
    path = tmp_path / "a.db"
    database_file.open_database(path, owner=True).close()
    with closing(sqlite3.connect(path)) as db:
        for table, row_type in (("results", ResultRow), ("outbox", OutboxEntry), ("ticks", TickRow)):
            columns = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
            assert columns == set(row_type.__dataclass_fields__), table


async def test_results_kept_together_are_each_kept_once(tmp_path: Path) -> None:
    """Of those that come at once, a job's first stands, its stat is posted once, and capabilities remember in order."""
    codes = ("ok", "busy", "busy", "ok", "busy", "503")
    given = [make_result(code, who=number % 3 + 1) for number in range(12) for code in codes]
    again = [replace(one, verdict=Verdict.from_code("503")) for one in given[::5]]
    async with open_database(tmp_path / "s.db") as database:
        results, queries = Results(database, clock=lambda: NOW), Queries(database)
        kept = await asyncio.gather(
            *(results.record(one, Stat.from_result(one, "FRA")) for one in [*given, *again, *given])
        )
        assert kept == [True] * len(given) + [False] * (len(again) + len(given))
        newest = {row.orchestrator: (row, streak) for row, streak in await queries.latest()}
        page = await queries.page(ResultFilters(), limit=1_000)
        entries = await Outbox(database).entries()
    assert [row.id for row in reversed(page)] == [one.id for one in given]
    assert [row.reason for row in reversed(page)] == [one.verdict.code for one in given]
    assert [entry.result for entry in entries] == [one.id for one in given]
    assert {row.reason for row, _ in newest.values()} == {"503"}
    assert [streak for _, streak in newest.values()] == [0, 0, 0]


async def test_one_that_cannot_be_kept_does_not_spoil_the_others(tmp_path: Path) -> None:
    """A value that has no place in the file fails alone; what came with it is kept."""
    given = [make_result() for _ in range(9)]
    given[4] = replace(given[4], status=2**70)
    async with open_database(tmp_path / "s.db") as database:
        results, queries = Results(database, clock=lambda: NOW), Queries(database)
        came = await asyncio.gather(*(results.record(one, None) for one in given), return_exceptions=True)
        page = await queries.page(ResultFilters(), limit=100)
    assert [one is True for one in came] == [number != 4 for number in range(9)]
    assert isinstance(came[4], OverflowError)
    assert [row.id for row in reversed(page)] == [one.id for one in given if one is not given[4]]
