"""A stat whose post had no sure answer is read back: it is never lost, and never counted twice."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from jobtester.domain.stats import Stat
from tests.harness.delivery import delivery_harness, make_result
from tests.harness.waiting import until

PAUSE_S = 2.0  # longer than the circuit breaker's first pause


async def test_an_answer_that_comes_too_late_is_looked_for(tmp_path: Path) -> None:
    """A post that is given up while the server is still storing is not sent again, and is found afterwards."""
    async with delivery_harness(tmp_path, timeout_s=0.2) as harness:
        harness.set_faults(slow_insert_s=1.5)
        await harness.record()
        await harness.run()
        assert await harness.states() == {"uncertain": 1}
        await harness.run(PAUSE_S)
        assert await harness.states() == {"uncertain": 1}, "it is not there yet, but it is too early to believe that"
        await until(harness.stored_numbers, "the row is stored")
        await harness.run(30)
        assert await harness.states() == {"delivered": 1}
        assert harness.stored_numbers() == [1]
        assert (await harness.entry()).attempts == 1


async def test_a_stat_that_waited_for_its_turn_does_not_count_as_lost_too_early(tmp_path: Path) -> None:
    """A miss counts from when the stat left, not from when it was claimed: slow ones may have been before it."""
    async with delivery_harness(tmp_path, timeout_s=0.5) as harness:
        harness.set_faults(slow_insert_s=0.1)
        await harness.record(2)
        running = asyncio.ensure_future(harness.run())
        await harness.leaderboard.post_progress.wait_for("arrived")
        harness.clock.advance(100)
        harness.set_faults(slow_insert_s=2.0)
        await running
        await harness.run(PAUSE_S)
        assert await harness.states() == {"delivered": 1, "uncertain": 1}
        assert (await harness.entry(2)).attempts == 1
        await until(lambda: len(harness.stored_numbers()) == 2, "both rows are stored")
        harness.set_faults()
        await harness.run(89)
        assert await harness.states() == {"delivered": 2}
        assert harness.stored_numbers() == [1, 2]


async def test_a_cached_answer_is_no_proof(tmp_path: Path) -> None:
    """The same request gets a fresh answer, although a cache in front of the server still has the earlier one."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(raw_stats_cached=True)
        await harness.record()
        entry = await harness.entry()
        since, get_rows = harness.clock.wall() - 60, harness.delivery.client.get_rows
        assert await get_rows(entry.orchestrator, pipeline=entry.pipeline, model=entry.model, since=since) == []
        await harness.run()
        assert harness.stored_numbers() == [1]
        assert len(await get_rows(entry.orchestrator, pipeline=entry.pipeline, model=entry.model, since=since)) == 1


async def test_a_clock_that_is_set_back_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """By a day, with one stat uncertain and one pending: the first is looked for and sent again, the other sent."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(drop_before_store=1.0)
        await harness.record(2)
        await harness.run()
        assert await harness.states() == {"uncertain": 1, "pending": 1}
        harness.set_faults()
        harness.clock.set_back(86_400)
        await harness.run(PAUSE_S)
        assert await harness.states() == {"uncertain": 1, "delivered": 1}
        for _ in range(30):
            await harness.run(15)
        assert await harness.states() == {"delivered": 2}
        assert sorted(harness.stored_numbers()) == [1, 2]


async def test_a_clock_that_is_set_back_after_a_stat_was_stored(tmp_path: Path) -> None:
    """The row is dated in what is now the future, and is found all the same."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(drop_after_store=1.0)
        await harness.record()
        await harness.run()
        harness.clock.set_back(3600)
        await harness.run(PAUSE_S)
        assert await harness.states() == {"delivered": 1}
        assert harness.stored_numbers() == [1]


@pytest.mark.parametrize("ahead_s", [3600, -3600, 10 * 86_400, -10 * 86_400])
async def test_a_clock_that_is_wrong_doubles_nothing(tmp_path: Path, ahead_s: float) -> None:
    """The server dates rows by its own clock: a stat that it stored is found there, however far ours is from it."""
    async with delivery_harness(tmp_path) as harness:
        harness.leaderboard.clock = lambda: harness.clock.wall() - ahead_s
        harness.set_faults(drop_after_store=1.0)
        await harness.record()
        await harness.run()
        harness.set_faults()
        await harness.run(PAUSE_S)
        assert await harness.states() == {"delivered": 1}
        await harness.run(600)
        assert harness.stored_numbers() == [1]


async def test_a_database_with_a_clock_of_its_own_doubles_nothing(tmp_path: Path) -> None:
    """Rows are dated by the database, which need not agree with what dates the answers: found before it is sent."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(drop_after_store=1.0)
        await harness.record()
        await harness.run()
        (row,) = harness.leaderboard.rows
        harness.leaderboard.rows[:] = [dataclasses.replace(row, insert_time=row.insert_time - 2 * 3600)]
        harness.set_faults()
        await harness.run(PAUSE_S)
        assert await harness.states() == {"uncertain": 1}
        await harness.run(120)
        assert await harness.states() == {"delivered": 1}
        assert harness.stored_numbers() == [1]


@pytest.mark.parametrize(("uncertain", "state"), [("resend", "delivered"), ("hold", "uncertain")])
async def test_unreadable_rows_leave_the_decision_to_the_setting(tmp_path: Path, uncertain: str, state: str) -> None:
    """`resend` posts after ten minutes more and says that it may be double; `hold` keeps it."""
    async with delivery_harness(tmp_path, uncertain=uncertain) as harness:
        harness.set_faults(drop_before_store=1.0, raw_stats_down=True)
        await harness.record()
        await harness.run()
        harness.set_faults(raw_stats_down=True)
        for _ in range(45):
            await harness.run(15)
        assert await harness.states() == {"uncertain": 1}
        for _ in range(3):
            await harness.run(15)
        assert await harness.states() == {state: 1}
        assert (await harness.entry()).maybe_double is (uncertain == "resend")


async def test_what_a_dead_process_was_sending_is_looked_for(tmp_path: Path) -> None:
    """Claimed, stored, and then dead: a new start finds the row; claimed and never sent: it is sent once."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record(2)
        claimed = await harness.outbox.claim(2)
        await harness.delivery.client.post(claimed[0].body)
        harness.clock.advance(1000)
        assert await harness.outbox.recover() == 2
        await harness.run()
        assert await harness.states() == {"delivered": 1, "uncertain": 1}, "it may have left just before the end"
        for _ in range(30):
            await harness.run(15)
        assert await harness.states() == {"delivered": 2}
        assert harness.stored_numbers() == [1, 2]


async def test_an_empty_answer_is_no_proof(tmp_path: Path) -> None:
    """`200 {}` comes also where the query failed: what is stored is not posted again, however long that lasts."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(drop_after_store=1.0, empty_reads=-1)
        await harness.record(4)
        await harness.run()
        harness.set_faults(empty_reads=-1)
        for _ in range(60):
            await harness.run(15)
        assert (await harness.states())["uncertain"] >= 1
        harness.set_faults()
        for _ in range(30):
            await harness.run(15)
        assert await harness.states() == {"delivered": 5}
        assert sorted(harness.stored_numbers()) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "faults", [{"slow_reads_s": 0.2, "db_timeout_s": 0.05}, {"slow_reads_s": 0.2, "statement_timeout_s": 0.05}]
)
async def test_a_query_that_runs_into_a_time_limit_is_no_proof(tmp_path: Path, faults: dict[str, float]) -> None:
    """`200 {}` first and 500 afterwards: what is stored is not posted again."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(drop_after_store=1.0, **faults)
        await harness.record()
        await harness.run()
        for _ in range(30):
            harness.set_faults(**faults)
            await harness.run(15)
        assert await harness.states() == {"delivered": 1, "uncertain": 1}
        harness.set_faults()
        await harness.run(30)
        assert await harness.states() == {"delivered": 2}
        assert harness.stored_numbers() == [1, 2]


async def test_a_slow_commit_is_waited_out(tmp_path: Path) -> None:
    """The client gets a 500, and the row is there a moment later."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(slow_commit_s=0.3, db_timeout_s=0.05)
        await harness.record()
        await harness.run()
        await until(harness.stored_numbers, "the row is stored")
        harness.set_faults()
        for _ in range(30):
            await harness.run(15)
        assert await harness.states() == {"delivered": 1}
        assert harness.stored_numbers() == [1]


@pytest.mark.slow
async def test_an_insert_that_outlives_its_server_is_waited_out(tmp_path: Path) -> None:
    """It waits for a lock, its server dies, and 200 s later it is stored: not posted again until then, nor after."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record(2)
        await harness.run()
        harness.set_faults(locked=True, db_timeout_s=5.0)
        await harness.record()
        running = asyncio.create_task(harness.run())
        await harness.leaderboard.post_progress.wait_for("arrived")
        await harness.leaderboard.stop()
        await running
        await harness.leaderboard.start()
        for _ in range(14):
            await harness.run(15)
            harness.set_faults(locked=True, db_timeout_s=0.05)  # each first read fails with `{}`
        assert (await harness.states(), harness.stored_numbers()) == ({"delivered": 2, "uncertain": 1}, [1, 2])
        harness.set_faults()
        for _ in range(30):
            await harness.run(15)
        assert (await harness.states(), harness.stored_numbers()) == ({"delivered": 3}, [1, 2, 3])


async def test_a_capability_with_more_rows_than_an_answer_may_hold(tmp_path: Path) -> None:
    """1,200 rows of 30 kB, and 4.5 MB at most per answer: a stored stat is found, and a lost one is posted again."""
    async with delivery_harness(tmp_path) as harness:
        for number in (1, 2, 3):
            result = dataclasses.replace(make_result(1, harness.clock.wall()), round_trip_s=number + 0.125)
            result = dataclasses.replace(result, job=dataclasses.replace(result.job, id=f"job-{number}"))
            if number == 2:
                harness.set_faults(drop_after_store=1.0)
            if number == 3:
                harness.set_faults(drop_before_store=1.0)
            assert await harness.results.record(result, Stat.from_result(result, "FRA"))
            await harness.run()
            row = harness.leaderboard.rows[0]
            big = {**row.stat, "round_trip_time": 9.5, "input_parameters": "{}", "response_payload": "x" * 30_000}
            while number < 3 and len(harness.leaderboard.rows) < 600 * number:
                harness.leaderboard.rows.insert(
                    0, dataclasses.replace(row, stat=big, insert_time=row.insert_time - 4000)
                )
            harness.set_faults(answer_limit=4_500_000)
            for _ in range(30):
                await harness.run(15)
        ours = [row.stat["round_trip_time"] for row in harness.leaderboard.rows if row.stat["round_trip_time"] != 9.5]
        assert sorted(ours) == [1.125, 2.125, 3.125]
        assert await harness.states() == {"delivered": 3}
