"""Whatever the Leaderboard does, each stat is there once, is on its way, or is kept with the reason why it is not."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from jobtester.domain.external_results import ExternalResult
from jobtester.domain.stats import Stat
from jobtester.simulator.leaderboard.leaderboard import SEEDED_REGIONS
from jobtester.simulator.scenario import GatewaySpec, generate
from jobtester.store.outbox import StateChange
from tests.harness.delivery import delivery_harness, make_result
from tests.harness.simulated import simulated_tester
from tests.harness.waiting import until

HTML = "<html>Please log in</html>"
PAUSE_S = 2.0  # longer than a first pause of the breaker


async def test_a_healthy_leaderboard_gets_each_stat_once(tmp_path: Path) -> None:
    """The measure of all the others."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record(3)
        await harness.run()
        await harness.run(3600)
        assert await harness.states() == {"delivered": 3}
        assert harness.stored_numbers() == [1, 2, 3]


@pytest.mark.parametrize("down", [True, False])
async def test_a_tick_does_not_mind_a_leaderboard_that_is_down_or_slow(tmp_path: Path, down: bool) -> None:
    """For the whole tick: it ends as ever with every result recorded, and afterwards each is posted once."""
    scenario = generate(
        seed=5, orchestrators=10, models_per_pipeline=2, pipelines=("llm",), latency_s=(0.02, 0.05),
        gateways=(GatewaySpec("g", mode="query", retry_window=0.1),),
    )  # fmt: skip
    async with simulated_tester(scenario, tmp_path) as tester:
        board = tester.network.leaderboard
        if down:
            await board.stop()
        board.faults.slow_insert_s = 2.0
        async with tester.serving(tick=True):
            report = await tester.first_report()
            assert (report.state, report.planned, report.settled) == ("finished", 20, 20)
            assert {row.outcome for row in await tester.results()} == {"passed"}
            assert await tester.daemon.outbox.count_waiting() == 20 if down else len(board.rows) < 20
            board.faults.slow_insert_s = 0.0
            if down:
                await board.start()

            async def all_delivered() -> bool:
                return len(board.rows) == 20 and not await tester.daemon.outbox.count_waiting()

            await until(all_delivered, "all stats are delivered")
        assert len(board.rows) == (await tester.daemon.outbox.counts())["delivered"] == 20


async def test_nothing_listens(tmp_path: Path) -> None:
    """A refused connection proves that nothing arrived: the stat stays to be posted, and is as soon as it can be."""
    async with delivery_harness(tmp_path) as harness:
        await harness.leaderboard.stop()
        await harness.record(2)
        await harness.run()
        assert await harness.states() == {"pending": 2}
        assert "nothing listens there" in harness.delivery.status.problem
        await harness.leaderboard.start()
        await harness.run(PAUSE_S)
        assert await harness.states() == {"delivered": 2}
        assert harness.stored_numbers() == [1, 2]
        assert harness.delivery.status.problem == ""


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


async def test_a_stat_that_waited_for_its_turn_is_not_believed_lost_too_early(tmp_path: Path) -> None:
    """A miss counts from when the stat left, not from when it was claimed: slow ones may have been before it."""
    async with delivery_harness(tmp_path, timeout_s=0.5) as harness:
        harness.set_faults(slow_insert_s=0.1)
        await harness.record(2)
        working = asyncio.ensure_future(harness.run())
        await harness.leaderboard.post_progress.wait_for("arrived")
        harness.clock.advance(100)
        harness.set_faults(slow_insert_s=2.0)
        await working
        await harness.run(PAUSE_S)
        assert await harness.states() == {"delivered": 1, "uncertain": 1}
        assert (await harness.entry(2)).attempts == 1
        await until(lambda: len(harness.stored_numbers()) == 2, "both rows are stored")
        harness.set_faults()
        await harness.run(89)
        assert await harness.states() == {"delivered": 2}
        assert harness.stored_numbers() == [1, 2]


async def test_500_with_ok_is_no_ok(tmp_path: Path) -> None:
    """The database is down: nothing is stored, and 89 s later that is not yet believed; then it is sent again."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(status=500, status_body='{"error":"connection refused"}ok', status_times=1)
        await harness.record()
        await harness.run()
        assert await harness.states() == {"delivered": 1, "uncertain": 1}
        await harness.run(60)
        await harness.run(29)
        assert await harness.states() == {"delivered": 1, "uncertain": 1}
        assert (await harness.entry(2)).attempts == 1
        for _ in range(30):
            await harness.run(15)
        assert await harness.states() == {"delivered": 2}
        assert harness.stored_numbers() == [1, 2]


async def test_500_although_it_was_stored(tmp_path: Path) -> None:
    """A time limit struck during the commit: the row is found, and not sent again."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(fail_after_store=1.0)
        await harness.record(2)
        for _ in range(3):
            await harness.run(30)
        assert await harness.states() == {"delivered": 2}
        assert harness.stored_numbers() == [1, 2]


@pytest.mark.parametrize("code", ["22P05", "22001", "54000"])
async def test_500_of_a_stat_that_cannot_be_stored_is_final(tmp_path: Path, code: str) -> None:
    """It is kept as refused with the server's words, others go on, and it is never sent again."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(status=500, status_body=f'{{"error":"ERROR: no (SQLSTATE {code})"}}ok', status_times=1)
        await harness.record(2)
        await harness.run()
        await harness.run(7200)
        assert await harness.states() == {"refused": 1, "delivered": 2}
        assert code in (await harness.entry(2)).problem
        assert harness.stored_numbers() == [1, 3]
        assert harness.leaderboard.posts["500"] == 1


async def test_a_wrong_secret_is_told_and_can_be_mended(tmp_path: Path) -> None:
    """403 refuses for good and says what to check; by hand it is posted again."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(refuse_signature=True)
        await harness.record(2)
        await harness.run()
        await harness.run(600)
        assert await harness.states() == {"refused": 2}
        assert "leaderboard.secret" in harness.delivery.status.problem
        harness.set_faults()
        assert await harness.outbox.retry() == (2, 0, 0)
        await harness.run()
        assert await harness.states() == {"delivered": 2}
        assert harness.delivery.status.problem == ""


async def test_a_stat_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """413 is final, and concerns the one stat only."""
    async with delivery_harness(tmp_path) as harness:
        harness.leaderboard.body_limit = 10
        await harness.record()
        await harness.run()
        harness.leaderboard.body_limit = None
        await harness.record()
        await harness.run(600)
        assert await harness.states() == {"refused": 1, "delivered": 1}
        assert "too large" in (await harness.entry(1)).problem
        assert harness.delivery.status.problem == ""


@pytest.mark.parametrize("status", [200, 502, 504])
async def test_html_proves_nothing(tmp_path: Path, status: int) -> None:
    """A proxy's page, with whatever status, is neither stored nor lost: it is read back, then sent again once."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(status=status, status_body=HTML)
        await harness.record()
        await harness.run()
        assert await harness.states() == {"delivered": 1, "uncertain": 1}
        await harness.run(100)
        assert await harness.states() == {"delivered": 1, "uncertain": 1}, "nothing can be read back either"
        assert harness.delivery.status.problem != ""
        assert harness.leaderboard.posts[str(status)] == 1
        harness.set_faults()
        for _ in range(30):
            await harness.run(15)
        assert await harness.states() == {"delivered": 2}
        assert harness.stored_numbers() == [1, 2]


async def test_an_answer_cut_in_the_middle(tmp_path: Path) -> None:
    """`o` is not `ok`: the row is looked for and found."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(reset_mid_body=1.0)
        await harness.record()
        await harness.run()
        assert await harness.states() == {"uncertain": 1}
        await harness.run(PAUSE_S)
        assert await harness.states() == {"delivered": 1}
        assert harness.stored_numbers() == [1]


@pytest.mark.parametrize(("fault", "attempts"), [("drop_after_store", 1), ("drop_before_store", 2)])
async def test_a_dropped_connection(tmp_path: Path, fault: str, attempts: int) -> None:
    """Stored before the drop: found. Not stored: sent again, when that is sure."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(**{fault: 1.0})
        await harness.record()
        await harness.run()
        assert await harness.states() == {"uncertain": 1}
        harness.set_faults()
        await harness.record()
        for _ in range(30):
            await harness.run(15)
        assert await harness.states() == {"delivered": 2}
        assert sorted(harness.stored_numbers()) == [1, 2]
        assert (await harness.entry()).attempts == attempts


async def test_a_cached_answer_is_no_proof(tmp_path: Path) -> None:
    """The same question is answered anew, although a cache in front of the server still has the answer from before."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(raw_stats_cached=True)
        await harness.record()
        entry = await harness.entry()
        since, ask = harness.clock.wall() - 60, harness.delivery.client.get_rows
        assert await ask(entry.orchestrator, pipeline=entry.pipeline, model=entry.model, since=since) == []
        await harness.run()
        assert harness.stored_numbers() == [1]
        assert len(await ask(entry.orchestrator, pipeline=entry.pipeline, model=entry.model, since=since)) == 1


async def test_a_region_that_vanishes_is_waited_for(tmp_path: Path) -> None:
    """400 invalid region after it was valid: nothing is lost or hammered, the reason is told, it goes on by itself."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(gone_regions={"FRA"})
        await harness.record(2)
        await harness.run()
        assert await harness.states() == {"delivered": 1, "pending": 2}
        await harness.run(PAUSE_S)
        assert "FRA" in harness.delivery.status.problem
        harness.set_faults()
        await harness.run(30)
        assert await harness.states() == {"delivered": 1, "pending": 2}, "it is asked for once a minute only"
        await harness.run(40)
        assert await harness.states() == {"delivered": 3}
        assert harness.stored_numbers() == [1, 2, 3]
        assert harness.delivery.status.problem == ""


async def test_invalid_region_may_mean_that_the_database_is_down(tmp_path: Path) -> None:
    """The region list still knows it: tried again with growing pauses, never given up."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(database_down="region")
        await harness.record()
        for _ in range(6):
            await harness.run(120)
        assert await harness.states() == {"delivered": 1, "pending": 1}
        harness.set_faults()
        await harness.run(120)
        assert await harness.states() == {"delivered": 2}


async def test_another_testers_region_is_not_given_up_while_the_database_is_down(tmp_path: Path) -> None:
    """What is forwarded waits as our own stats do; only a region that is listed no longer is a reason to refuse it."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(database_down="region")
        await harness.record(region="LAX")
        await harness.run()
        assert await harness.states() == {"delivered": 1, "pending": 1}
        harness.set_faults()
        await harness.run(120)
        assert await harness.states() == {"delivered": 2}
        harness.set_faults(gone_regions={"LAX"})
        await harness.record(region="LAX")
        await harness.run()
        await harness.run(PAUSE_S)
        assert await harness.states() == {"delivered": 2, "refused": 1}


async def test_another_testers_region_is_not_given_up_unasked(tmp_path: Path) -> None:
    """A region that was added lately is asked for; where that fails, the stat waits until it can be."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(gone_regions={"LAX"})
        await harness.record()
        await harness.run()
        harness.set_faults(database_down="500")
        await harness.record(region="LAX")
        await harness.run(100)
        assert await harness.states() == {"delivered": 1, "pending": 1}
        harness.set_faults()
        await harness.run(120)
        assert await harness.states() == {"delivered": 2}


async def test_transcoding_stats_go_to_no_region_that_would_drop_them(tmp_path: Path) -> None:
    """Not even to our own, which may be for AI alone: the post would be answered `ok`, and nothing stored."""
    transcoding = Stat.from_result(make_result(1, 1_800_000_000.0), "FRA")
    transcoding = dataclasses.replace(transcoding, pipeline="", model="")
    async with delivery_harness(tmp_path) as harness:
        harness.leaderboard.regions = (("FRA", "Frankfurt", "ai"),)
        assert await harness.results.record_external(b"{}", "peer", [ExternalResult({}, transcoding, "transcoding")])
        await harness.run()
        assert await harness.states() == {"refused": 1}
        assert "transcoding" in (await harness.entry()).problem


async def test_a_region_for_transcoding_only_gets_nothing(tmp_path: Path) -> None:
    """Such a post would be answered `ok` and dropped: none is made, and the reason is told."""
    async with delivery_harness(tmp_path, region="NYC") as harness:
        await harness.record(region="NYC")
        await harness.run()
        await harness.run(600)
        assert await harness.states() == {"pending": 1}
        assert harness.leaderboard.posts["silently_dropped"] == 0
        assert "NYC" in harness.delivery.status.problem
        assert "FRA" in harness.delivery.status.problem, "those that would do are named"


async def test_a_clock_that_is_set_back_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """By a day, with one stat unsure and one waiting: the first is looked for and sent again, the other just sent."""
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
    """The row is dated in what is now the future, and yet found."""
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


async def test_what_a_person_drops_stays_dropped(tmp_path: Path) -> None:
    """Also where it is just being looked for, whatever comes of that."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(drop_before_store=1.0)
        await harness.record()
        await harness.run()
        assert (await harness.entry()).state == "uncertain"
        assert await harness.outbox.drop() == 1
        await harness.outbox.apply([StateChange((await harness.entry()).seq, "pending")])
        assert await harness.states() == {"dropped": 1}


async def test_a_retry_by_hand_posts_at_once_only_what_is_named(tmp_path: Path) -> None:
    """A dropped stat that was sent is looked for first; an uncertain one is posted by its number, as perhaps double."""
    async with delivery_harness(tmp_path) as harness:
        harness.set_faults(drop_after_store=1.0)
        await harness.record()
        await harness.run()
        harness.set_faults(drop_before_store=1.0)
        await harness.record()
        await harness.run(PAUSE_S)
        harness.set_faults(raw_stats_down=True, drop_before_store=1.0)
        await harness.record(2)
        for _ in range(4):
            await harness.run(9)
        assert await harness.states() == {"delivered": 1, "uncertain": 3}
        assert await harness.outbox.retry() == (0, 0, 0), "what is unsure is left alone where it is not named"
        assert await harness.outbox.drop([2]) == 1
        harness.set_faults()
        assert await harness.outbox.retry([2, 3]) == (1, 1, 1)
        assert [(await harness.entry(number)).maybe_double for number in (2, 3, 4)] == [False, True, False]
        for _ in range(40):
            await harness.run(15)
        assert await harness.states() == {"delivered": 4}
        assert sorted(harness.stored_numbers()) == [1, 2, 3, 4]


async def test_an_old_stat_is_kept_and_not_posted(tmp_path: Path) -> None:
    """Rows are dated by their arrival: what is older than delivery.max_age expires, and stays for people to see."""
    async with delivery_harness(tmp_path, max_age_s=3600.0) as harness:
        await harness.leaderboard.stop()
        await harness.record(2)
        await harness.run()
        harness.clock.advance(3500)
        await harness.record()
        await harness.leaderboard.start()
        await harness.run(200)
        assert await harness.states() == {"expired": 2, "delivered": 1}
        assert harness.stored_numbers() == [3]
        assert "delivery.max_age" in (await harness.entry(1)).problem
        assert await harness.outbox.retry([1]) == (1, 0, 0)
        await harness.run()
        assert harness.stored_numbers() == [3, 1]


async def test_after_an_outage_one_probe_and_then_the_backlog_oldest_first(tmp_path: Path) -> None:
    """While it is down each pause ends in one post; when that goes well the rest follows in order."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(status=503, status_body="postgres is not configured")
        await harness.record(40)
        await harness.run()
        for probes in range(1, 7):
            assert harness.leaderboard.posts["503"] == probes
            pause_s = harness.delivery.status.open_for_s
            assert min(4, 2 ** (probes - 2)) <= pause_s <= min(8, 2 ** (probes - 1))
            await harness.run(0.98 * pause_s)
            assert harness.leaderboard.posts["503"] == probes, "not before the pause is over"
            await harness.run(0.03 * pause_s)
        harness.set_faults()
        harness.clock.advance(harness.delivery.status.open_for_s + 0.01)
        assert await harness.delivery.run_once()
        assert harness.stored_numbers() == [1, 2], "the probe is the oldest, alone"
        await harness.run()
        assert harness.stored_numbers() == list(range(1, 42))
        assert await harness.states() == {"delivered": 41}


@pytest.mark.parametrize(("status", "body"), [(429, "slow down"), (503, "postgres is not configured")])
async def test_retry_after_is_respected(tmp_path: Path, status: int, body: str) -> None:
    """The server says when: not before, and then at once."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(status=status, status_body=body, status_times=1, retry_after="600")
        await harness.record()
        await harness.run()
        await harness.run(300)
        await harness.run(299)
        assert await harness.states() == {"delivered": 1, "pending": 1}
        await harness.run(2)
        assert await harness.states() == {"delivered": 2}
        assert harness.leaderboard.posts[str(status)] == 1


@pytest.mark.parametrize(("uncertain", "state"), [("resend", "delivered"), ("hold", "uncertain")])
async def test_where_nothing_can_be_read_back(tmp_path: Path, uncertain: str, state: str) -> None:
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


async def test_a_leaderboard_that_never_answers_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    """What it was only asked is not waited for."""
    asked = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    async with (
        delivery_harness(tmp_path, timeout_s=600) as harness,
        await asyncio.start_server(take, "127.0.0.1", 0) as server,
    ):
        harness.delivery.client.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await harness.record()
        stop = asyncio.Event()
        running = asyncio.ensure_future(harness.delivery.run(stop))
        await asked.wait()
        stop.set()
        async with asyncio.timeout(60):
            await running
        assert await harness.states() == {"pending": 1}


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


async def test_a_delivered_stat_that_is_not_stored_is_posted_once_more(tmp_path: Path) -> None:
    """The region lost its row after it was asked for: the post is answered `ok`; the audit finds it out."""
    async with delivery_harness(tmp_path, audit_per_tick=5) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(gone_ai_regions={"FRA"})
        await harness.record()
        await harness.run()
        assert await harness.states() == {"delivered": 2}
        harness.set_faults()
        while not harness.delivery.status.lost:
            await harness.run(15)
        assert "not stored" in harness.delivery.status.problem
        for _ in range(40):
            await harness.run(15)
        assert harness.stored_numbers() == [1, 2]
        assert (harness.delivery.status.lost, harness.delivery.status.problem) == (0, ""), "it is shown by now"
        assert await harness.states() == {"delivered": 2}


async def test_a_missed_stat_is_read_back_until_that_is_settled(tmp_path: Path) -> None:
    """One look proves no absence; that another stat of the tick is shown meanwhile does not end the search."""
    async with delivery_harness(tmp_path, audit_per_tick=1) as harness:
        assert await harness.delivery.region_check.is_usable()
        harness.set_faults(gone_ai_regions={"FRA"})
        await harness.record()
        await harness.run()
        assert (harness.stored_numbers(), await harness.states()) == ([], {"delivered": 1})
        harness.set_faults()
        await harness.run(310)
        assert harness.delivery.status.lost == 0, "nothing was ever stored with which to compare"
        await harness.record(30)
        await harness.run()
        await harness.run(100)
        for _ in range(4):
            await harness.run(31)
        assert sorted(harness.stored_numbers()) == list(range(1, 32))
        assert await harness.states() == {"delivered": 31}


async def test_a_database_that_is_created_anew_gets_each_stat_once_more(tmp_path: Path) -> None:
    """Rows, control rows and the region vanish: what was lost is told and posted again, and nothing is doubled."""
    async with delivery_harness(tmp_path, region="NYC", audit_per_tick=1) as harness:
        harness.leaderboard.regions = (*SEEDED_REGIONS, ("NYC", "New York", "ai"))
        await harness.record(4, region="NYC")
        await harness.run()
        await harness.run(60)
        assert await harness.states() == {"delivered": 4}
        harness.leaderboard.recreate_database()
        await harness.record(2, region="NYC")
        await harness.run()
        assert (harness.stored_numbers(), await harness.states()) == ([], {"delivered": 6}), (
            "answered `ok`, and stored nowhere"
        )
        await harness.run(330)
        harness.leaderboard.regions = (*SEEDED_REGIONS, ("NYC", "New York", "ai"))
        await harness.run(61)
        await harness.record(region="NYC")
        for _ in range(200):
            await harness.run(15)
        assert await harness.states() == {"delivered": 7}
        assert sorted(harness.stored_numbers()) == [1, 2, 3, 4, 5, 6, 7]
        assert harness.delivery.status.problem == ""


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
    """The client is told 500, and the row is there a moment later."""
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
        working = asyncio.create_task(harness.run())
        await harness.leaderboard.post_progress.wait_for("arrived")
        await harness.leaderboard.stop()
        await working
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
