"""What the repositories of the store record, move and return, on a real file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from jobtester.domain.attribution import AttributionKind
from jobtester.domain.external_results import parse_results
from jobtester.domain.orchestrators import CapabilityKey
from jobtester.domain.reasons import Note
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.store.database import Database
from jobtester.store.outbox import STATES, DueTimes, Outbox, RetryCounts, StateChange
from jobtester.store.queries import Queries, ResultFilters, build_page_query
from jobtester.store.results import ResultRow, Results
from jobtester.store.ticks import Ticks
from tests.harness.receiver import AI_STAT
from tests.harness.store import NOW, make_result, open_database, record_results

FILTERS: list[tuple[dict[str, Any], str]] = [
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
    ({"since": NOW - 5, "until": NOW + 5}, "results_started"),
    ({"since": NOW + 1, "until": NOW + 5}, "results_started"),
    ({"since": NOW - 5, "until": NOW + 5, "outcome": "failed"}, "results_started"),
    ({"tick": "t1", "since": NOW - 5}, "results_tick"), ({"outcome": "failed", "until": NOW}, "results_outcome"),
    ({"orchestrator": f"0x{3:040x}", "since": NOW, "outcome": "failed"}, "results_history"),
]  # fmt: skip


def matches(row: ResultRow, filters: dict[str, Any]) -> bool:
    """Return True if a result matches filters, as their descriptions say."""
    texts = {name: value for name, value in filters.items() if name not in ("since", "until")}
    is_in_time = filters.get("since", 0.0) <= row.started_at < filters.get("until", 1e18)
    return is_in_time and all(getattr(row, name) == value for name, value in texts.items())


async def test_filters_return_their_rows_by_an_index(tmp_path: Path) -> None:
    """Filters, alone and together, return exactly their rows, page by page, by the most selective index."""
    codes = ("ok", "ok", "503", "busy", "check:image")
    async with open_database(tmp_path / "a.db") as database:
        results, queries = Results(database), Queries(database)
        for number in range(300):
            result = make_result(codes[number % 5], number=number % 7, model=f"m{number % 3}", tick=f"t{number % 2}")
            await results.record(result, None)
        everything = await queries.page(ResultFilters(), limit=1_000)
        for filters, index in FILTERS:
            expected = [row.seq for row in everything if matches(row, filters)]
            seqs: list[int] = []
            while page := await queries.page(ResultFilters(**filters), before=seqs[-1] if seqs else None, limit=9):
                seqs += [row.seq for row in page]
            assert seqs == expected, filters
            if filters:
                statement, values = build_page_query(ResultFilters(**filters), None, 9)
                plan = await database.read(
                    lambda db, sql=statement, values=values: db.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()  # type: ignore[misc]
                )
                assert re.search(f"USING (COVERING )?INDEX {index} ", str(plan)), (filters, plan)
                # What is sorted is numbers alone: whole rows are large.
                is_small = "COVERING" in str(plan) or "since" in filters
                assert "TEMP B-TREE" not in str(plan) or is_small, (filters, plan)


async def test_a_page_of_one_service_uri(tmp_path: Path) -> None:
    """An address may have several service URIs; the filter distinguishes them, alone and beside other filters."""
    async with open_database(tmp_path / "a.db") as database:
        results, queries = Results(database), Queries(database)
        first, second = make_result(number=1), make_result(number=1)
        moved = replace(first.job.orchestrator, service_uri="https://moved.example:8935")
        second = replace(second, job=replace(second.job, orchestrator=moved))
        for result in (first, second):
            await results.record(result, None)
        for orchestrator in ("", moved.address):
            rows = await queries.page(ResultFilters(service_uri=moved.service_uri, orchestrator=orchestrator))
            assert [row.id for row in rows] == [second.id]


def address(number: int) -> str:
    """Return the address of the orchestrator with a number."""
    return f"0x{number:040x}"


async def states(outbox: Outbox) -> dict[str, int]:
    """Return the number of entries by state, without empty states."""
    return {state: count for state, count in (await outbox.counts()).items() if count}


async def record_pending(database: Database, count: int, *, at: float = NOW, **keys: Any) -> list[Result]:
    """Record results one after the other, with pending stats."""
    results = [make_result(number=number + 1, **keys) for number in range(count)]
    for result in results:
        await Results(database, lambda: at).record(result, Stat.from_result(result, "FRA"))
    return results


async def test_one_result_is_returned_as_it_was_recorded(tmp_path: Path) -> None:
    """By its id, with a price beyond 64 bits and its measures; None for another id."""
    async with open_database(tmp_path / "a.db") as database:
        result = replace(make_result(), measures={"tokens_per_s": 7.5})
        await record_results(database, NOW, result)
        row = await Queries(database).get(result.id)
        assert row is not None
        assert (row.id, row.warm, row.estimated_price_wei) == (result.id, True, 10**20)
        assert (row.evidence, row.measures) == (("metric: moved",), {"tokens_per_s": 7.5})
        assert await Queries(database).get("none") is None
        assert await Queries(database).targets() == [(address(1), "https://o1.example:8935")]


async def test_capabilities_are_paged_by_orchestrator(tmp_path: Path) -> None:
    """A page holds whole orchestrators in order, each capability with its recent results, oldest first."""
    async with open_database(tmp_path / "a.db") as database:
        queries = Queries(database)
        for code in ("ok", "busy", "503"):
            for number in (3, 1, 2):
                await record_results(database, NOW, make_result(code, number=number))
        await record_results(database, NOW, make_result(number=2, model="other"))
        page = await queries.capabilities(after="", limit=2, recent=2)
        assert [(row.orchestrator, row.model) for row in page] == [
            (address(1), "m"), (address(2), "m"), (address(2), "other")
        ]  # fmt: skip
        assert [point.reason for point in page[0].recent] == ["busy", "503"]
        assert page[0].newest.reason == "503"
        rest = await queries.capabilities(after=address(2), limit=2)
        assert [row.orchestrator for row in rest] == [address(3)]
        assert await queries.capabilities(after="", limit=2, pipeline="none") == []
        assert [row.orchestrator for row in await queries.matrix()] == [address(number) for number in (1, 2, 2, 3)]
        assert {row.orchestrator for row in await queries.matrix(address(2))} == {address(2)}


async def test_points_that_are_remembered_are_those_of_the_store(tmp_path: Path) -> None:
    """Who reads after every tick sees what a first reader sees, also when late evidence has changed the newest."""
    async with open_database(tmp_path / "a.db") as database:
        remembering = Queries(database)
        for tick in range(16):
            for number in (1, 2) if tick % 3 else (1, 1, 2):
                await record_results(database, NOW + tick, make_result("ok" if tick % 2 else "503", number=number))
            if tick in (4, 13):
                await remembering.matrix()
                await database.write(
                    lambda db: db.execute(
                        "UPDATE results SET outcome = 'unscored' WHERE seq IN (SELECT seq FROM latest)"
                    )
                )
            rows = await remembering.matrix()
            assert rows == await Queries(database).matrix(), tick
        assert [len(row.recent) for row in rows] == [12, 12]


async def test_a_tick_has_its_slowest_jobs_and_its_timeline(tmp_path: Path) -> None:
    """The slowest come first; the timeline follows the start of the jobs. Other ticks have no part in them."""
    async with open_database(tmp_path / "a.db") as database:
        jobs = [replace(make_result(), started_at=NOW - at, round_trip_s=trip) for at, trip in ((1, 2.0), (3, 1.0))]
        await record_results(database, NOW, *jobs, make_result(tick="other"))
        queries = Queries(database)
        assert [row[0] for row in await queries.slowest("t")] == [jobs[0].id, jobs[1].id]
        assert [row[0] for row in await queries.timeline("t")] == [jobs[1].id, jobs[0].id]
        assert len(await queries.slowest("t", 1)) == 1


async def test_other_testers_results_are_paged_with_the_state_of_their_stats(tmp_path: Path) -> None:
    """Newest first; a body that came within a day is refused."""
    async with open_database(tmp_path / "a.db") as database:
        results, queries, outbox = Results(database), Queries(database), Outbox(database)
        bodies = [orjson.dumps(AI_STAT | {"timestamp": number}) for number in range(3)]
        for body in bodies:
            assert await results.record_external(body, "peer", parse_results(body))
        assert not await results.record_external(bodies[0], "peer", parse_results(bodies[0]))
        await outbox.drop([1])
        newest, *_ = page = await queries.external_results(before=None, limit=2)
        assert [orjson.loads(row.stat)["timestamp"] for row in page] == [2, 1]
        (oldest,) = await queries.external_results(before=page[-1].seq, limit=2)
        assert (newest.state, oldest.state, oldest.source) == ("pending", "dropped", "peer")
        assert [source for _, source, _, _ in await queries.newest_external(2)] == ["peer", "peer"]


async def test_planning_asks_for_durations_prices_and_what_was_tested(tmp_path: Path) -> None:
    """A passed job moves the usual duration by three tenths; prices add up beyond 64 bits; unscored is untested."""
    async with open_database(tmp_path / "a.db") as database:
        results = Results(database)
        await record_results(database, NOW - 100, replace(make_result(), round_trip_s=1.0))
        await record_results(database, NOW, replace(make_result(), round_trip_s=2.0))
        await record_results(
            database, NOW, replace(make_result("503"), round_trip_s=9.0), make_result("busy", number=2)
        )
        key = CapabilityKey(address(1), "https://o1.example:8935", "llm", "m")
        assert await results.durations() == {key: pytest.approx(1.3)}
        assert await results.spent_wei(NOW - 1) == 3 * 10**20
        assert await results.tested_since(NOW - 1) == {key}
        other = CapabilityKey(address(2), "https://o2.example:8935", "llm", "m")
        assert await results.unscored_streaks("t") == {key: 0, other: 1}


async def test_requests_with_a_note_are_returned_once(tmp_path: Path) -> None:
    """Only of results with that reason and that note."""
    async with open_database(tmp_path / "a.db") as database:
        results, note = Results(database), Note("chat", "token_limit", "…")
        for code, notes in (
            ("tester_fault", (note,)),
            ("tester_fault", (note,)),
            ("tester_fault", ()),
            ("ok", (note,)),
        ):
            await results.record(replace(make_result(code), notes=notes, request="{}"), None)
        assert await results.requests_with_note("tester_fault", "token_limit") == [("llm", "m", "{}")]


@pytest.mark.parametrize("state", STATES)
async def test_late_evidence_unscores_until_the_stat_was_sent(tmp_path: Path, state: str) -> None:
    """A refutation withdraws a stat that waits; once it may have been sent, only the line is added."""
    sent = state in ("sending", "uncertain", "delivered")
    async with open_database(tmp_path / "a.db") as database:
        results, queries, result = Results(database), Queries(database), make_result("503")
        await record_results(database, NOW, result, state=state)
        assert await results.add_evidence(result.id, AttributionKind.REFUTED, "served elsewhere")
        row = await queries.get(result.id)
        assert row is not None
        assert (row.outcome, row.reason) == (("failed", "503") if sent else ("unscored", "refuted"))
        assert (row.attribution, row.evidence[-1]) == ("proven" if sent else "refuted", "served elsewhere")
        assert await states(Outbox(database)) == ({state: 1} if sent else {})
        assert [streak for _, streak in await queries.latest()] == [0 if sent else 1]
        assert not await results.add_evidence("none", AttributionKind.REFUTED, "…")


async def test_held_stats_are_released_suspected_or_dropped(tmp_path: Path) -> None:
    """Each move concerns one gateway in one tick; suspects become unscored, or pending because a person decided so."""
    async with open_database(tmp_path / "a.db") as database:
        results, outbox, queries = Results(database, lambda: NOW), Outbox(database, lambda: NOW), Queries(database)
        for tick in ("a", "b", "c"):
            await record_results(database, NOW, make_result("503", tick=tick), state="held")
        assert await results.release_held("a", "g") == 1
        assert await results.suspect_held("b", "g") == 1
        assert await results.suspect_held("c", "other") == 0
        assert await states(outbox) == {"held": 1, "suspect": 1, "pending": 1}
        assert await results.release_suspects("b") == 1
        assert await results.suspect_held("c", "g") == 1
        assert await results.unscore_suspects("g") == 1
        assert await states(outbox) == {"pending": 2}
        (row,) = await queries.page(ResultFilters(tick="c"))
        assert (row.outcome, row.reason) == ("unscored", "tick_suspect")


async def test_the_oldest_due_entries_are_claimed(tmp_path: Path) -> None:
    """In order of recording, each once; one with an absurdly late due time is from before the clock was set back."""
    async with open_database(tmp_path / "a.db") as database:
        outbox = Outbox(database, lambda: NOW)
        await record_pending(database, 4)
        await outbox.apply([StateChange(1, "pending", NOW + 60), StateChange(3, "pending", NOW + 1e6)])
        claimed = await outbox.claim(2)
        assert [(entry.seq, entry.state, entry.attempts) for entry in claimed] == [(2, "sending", 1), (3, "sending", 1)]
        assert [entry.seq for entry in await outbox.claim(9)] == [4]
        assert await outbox.claim(9) == []
        assert await outbox.next_due() == DueTimes(NOW + 60, None)
        assert await outbox.count_waiting() == 4
        assert await outbox.oldest_age_s(NOW + 5) == 5
        assert await outbox.recover() == 3
        assert [entry.seq for entry in await outbox.due_look_ups(9)] == [2, 3, 4]


async def test_states_change_but_not_of_what_a_person_dropped(tmp_path: Path) -> None:
    """A delivered entry is settled; `maybe_double` stays once it is set; sending times never lie in the future."""
    async with open_database(tmp_path / "a.db") as database:
        await record_pending(database, 3)
        outbox, later = Outbox(database, lambda: NOW), Outbox(database, lambda: NOW - 50)
        await outbox.claim(2)
        await outbox.drop([3])
        changes = [StateChange(1, "delivered"), StateChange(2, "uncertain", problem="late", maybe_double=True)]
        await later.apply([*changes, StateChange(3, "delivered")])
        first, second, third = await outbox.entries(STATES)
        assert (first.state, first.settled_at, first.last_sent_at) == ("delivered", NOW - 50, NOW - 50)
        assert (second.state, second.settled_at, second.problem, second.maybe_double) == (
            "uncertain",
            None,
            "late",
            True,
        )
        assert third.state == "dropped"
        await outbox.apply([StateChange(2, "pending")])
        assert [entry.maybe_double for entry in await outbox.entries(("pending",))] == [True]
        assert [entry.seq for entry in await outbox.entries(STATES, 1, after=1)] == [2]


async def test_a_person_drops_and_retries(tmp_path: Path) -> None:
    """All or some; what had been sent is looked up first, and an uncertain one is posted again only if it is named."""
    async with open_database(tmp_path / "a.db") as database:
        outbox = Outbox(database, lambda: NOW)
        await record_pending(database, 5)
        await outbox.claim(3)
        changes = [StateChange(1, "uncertain"), StateChange(2, "uncertain"), StateChange(3, "refused")]
        await outbox.apply(changes)
        assert await outbox.drop([2, 4]) == 2
        assert await outbox.retry() == RetryCounts(posted=2, looked_up=1, maybe_double=0)
        assert await states(outbox) == {"pending": 3, "uncertain": 2}
        assert await outbox.retry([1, 5]) == RetryCounts(posted=1, looked_up=0, maybe_double=1)
        assert await outbox.drop() == 5


async def test_old_entries_expire_and_delivered_ones_are_audited_once(tmp_path: Path) -> None:
    """At most so many of a tick; one that is lost is pending again."""
    async with open_database(tmp_path / "a.db") as database:
        outbox = Outbox(database, lambda: NOW)
        await record_pending(database, 1, at=NOW - 100)
        assert (await outbox.expire(200), await outbox.expire(50)) == (0, 1)
        await record_results(database, NOW - 60, *(make_result(tick=tick) for tick in "aaabb"), state="delivered")
        due = await outbox.due_audits(2, older_s=10, newer_s=100)
        assert sorted(entry.tick for entry in due) == ["a", "a", "b", "b"]
        assert await outbox.due_audits(2, older_s=61, newer_s=100) == []
        await outbox.record_audit(due[0].seq)
        await outbox.record_audit(due[1].seq, lost="gone")
        assert {entry.seq for entry in await outbox.due_audits(9, older_s=10, newer_s=100)}.isdisjoint(
            {due[0].seq, due[1].seq}
        )
        (pending,) = await outbox.entries(("pending",))
        assert (pending.seq, pending.problem, pending.audited_at) == (due[1].seq, "gone", None)


async def test_neighbors_of_an_entry(tmp_path: Path) -> None:
    """The control was delivered before it, preferably of the same capability; the witness is the newest delivered."""
    async with open_database(tmp_path / "a.db") as database:
        outbox = Outbox(database, lambda: NOW)
        await record_results(database, NOW - 90, make_result(model="m"), state="delivered")
        await record_results(database, NOW - 80, make_result(model="other"), state="delivered")
        await record_results(database, NOW - 70, make_result(number=2), state="delivered")
        await record_pending(database, 1)
        (entry,) = await outbox.claim(1)
        neighbors = await outbox.neighbors(entry)
        assert neighbors.control is not None
        assert neighbors.witness is not None
        assert (neighbors.control.seq, neighbors.witness.seq, neighbors.later_at) == (1, 3, None)
        other = await outbox.neighbors(replace(entry, model="third"))
        assert other.control is not None
        assert other.control.seq == 2
        assert (await outbox.neighbors(replace(entry, orchestrator="0x0"))).control is None


async def test_ticks_start_finish_and_are_abandoned(tmp_path: Path) -> None:
    """The newest is `last`; one whose start was not recorded is recorded at its end."""
    async with open_database(tmp_path / "a.db") as database:
        ticks = Ticks(database)
        assert await ticks.get("last") is None
        await ticks.start("a", NOW, 1, "clock")
        await ticks.start("b", NOW + 1, 2, "clock")
        report = {"started_at": NOW + 2, "seed": 3, "trigger": "test", "planned": 7}
        await ticks.finish("c", "finished", NOW + 3, report)
        await ticks.finish("a", "failed", NOW + 3, report)
        assert await ticks.abandon_unfinished(NOW + 4) == 1
        last, first = await ticks.get("last"), await ticks.get("a")
        assert last is not None
        assert first is not None
        assert (last.id, last.report, first.started_at, first.state) == ("c", report, NOW, "failed")
        assert [(tick.id, tick.state) for tick in await ticks.newest(2, NOW + 2)] == [("b", "aborted"), ("a", "failed")]
