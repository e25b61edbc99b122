"""Whatever the Leaderboard does, each stat is there once, is on its way, or is kept with the reason why it is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec
from jobtester.store.outbox import StateChange
from tests.harness.delivery import delivery_harness
from tests.harness.simulated import simulated_tester
from tests.harness.waiting import until

HTML = "<html>Please log in</html>"
PAUSE_S = 2.0  # longer than the circuit breaker's first pause


async def test_a_healthy_leaderboard_gets_each_stat_once(tmp_path: Path) -> None:
    """Without any fault: what the other tests are compared with."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record(3)
        await harness.run()
        await harness.run(3600)
        assert await harness.states() == {"delivered": 3}
        assert harness.stored_numbers() == [1, 2, 3]


@pytest.mark.parametrize("down", [True, False])
async def test_a_tick_goes_on_while_the_leaderboard_is_down_or_slow(tmp_path: Path, down: bool) -> None:
    """The tick ends as usual with every result recorded, and afterwards each stat is posted once."""
    scenario = generate(
        seed=5, orchestrators=10, models_per_pipeline=2, pipelines=("llm",), latency_s=(0.02, 0.05),
        gateways=(GatewaySpec("g", mode="query", retry_window=0.1),),
    )  # fmt: skip
    async with simulated_tester(scenario, tmp_path) as tester:
        leaderboard = tester.network.leaderboard
        if down:
            await leaderboard.stop()
        leaderboard.faults.slow_insert_s = 2.0
        async with tester.serving(tick=True):
            report = await tester.first_report()
            assert (report.state, report.planned, report.settled) == ("finished", 20, 20)
            assert {row.outcome for row in await tester.results()} == {"passed"}
            assert await tester.daemon.outbox.count_waiting() == 20 if down else len(leaderboard.rows) < 20
            leaderboard.faults.slow_insert_s = 0.0
            if down:
                await leaderboard.start()

            async def all_delivered() -> bool:
                return len(leaderboard.rows) == 20 and not await tester.daemon.outbox.count_waiting()

            await until(all_delivered, "all stats are delivered")
        assert len(leaderboard.rows) == (await tester.daemon.outbox.counts())["delivered"] == 20


async def test_nothing_listens(tmp_path: Path) -> None:
    """A refused connection proves that nothing arrived: the stat stays pending, and is posted after the outage."""
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


async def test_500_with_ok_in_its_body_is_not_ok(tmp_path: Path) -> None:
    """The database is down: nothing is stored, and 89 s later a miss does not count yet; then it is sent again."""
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


async def test_a_wrong_secret_is_reported_and_can_be_corrected(tmp_path: Path) -> None:
    """403 refuses for good, and the problem says what to check; a person can have the stats posted again."""
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


async def test_a_manual_retry_posts_at_once_only_what_is_named(tmp_path: Path) -> None:
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


async def test_an_old_stat_stays_stored_and_is_not_posted(tmp_path: Path) -> None:
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
            assert min(2, 2 ** (probes - 2)) <= pause_s <= min(4, 2 ** (probes - 1))
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


async def test_a_leaderboard_that_hangs_gets_single_probes_and_soon_the_backlog(tmp_path: Path) -> None:
    """A probe without an answer does not hold up the next one for as long as a post may take."""
    async with delivery_harness(tmp_path) as harness:
        posts, post, status = harness.leaderboard.posts, harness.delivery.post, harness.delivery.status
        in_flight = harness.delivery.poster.in_flight
        in_flight.silent_s = 0.2
        harness.set_faults(withheld_posts=1.0)
        await harness.record(40)
        while await post():
            pass
        sent = posts["withheld"]
        assert sent == 17, "so many may be late before it is the server that is slow"
        for probes in range(1, 6):
            assert 0.5 <= status.open_for_s <= 4.0
            await post()
            harness.clock.advance(0.98 * status.open_for_s)
            await post()
            assert posts["withheld"] == sent + probes - 1, "not before the pause is over"
            harness.clock.advance(status.open_for_s + 0.01)
            while await post():
                pass
            assert posts["withheld"] == sent + probes, "one at a time"
        harness.set_faults()
        harness.clock.advance(status.open_for_s + 0.01)
        while await post():
            pass
        assert await harness.states() == {"sending": 22, "delivered": 18}
        harness.delivery.poster.sender.stop()
        await in_flight.finish()
        await harness.delivery.poster.settle()
        assert await harness.states() == {"uncertain": 22, "delivered": 18}
        assert not status.is_failing


async def test_look_ups_do_not_hammer_a_leaderboard_that_is_down(tmp_path: Path) -> None:
    """In an outage one at a time, with pauses of five seconds, however many are due."""
    async with delivery_harness(tmp_path, parallel=8) as harness:
        harness.set_faults(drop_after_store=1.0)
        await harness.record(8)
        await harness.run()
        assert await harness.states() == {"uncertain": 8}
        await harness.leaderboard.stop()
        tried = []
        for _ in range(12):
            before = {entry.seq: entry.due_at for entry in await harness.outbox.entries(("uncertain",))}
            while await harness.delivery.reconcile():
                pass
            after = await harness.outbox.entries(("uncertain",))
            tried.append(sum(before[entry.seq] != entry.due_at for entry in after))
            harness.clock.advance(1.7)
        assert set(tried) == {0, 1}
        assert 3 <= sum(tried) <= 5, "in twenty seconds"


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


async def test_a_leaderboard_that_never_answers_does_not_prevent_a_stop(tmp_path: Path) -> None:
    """The answer to a mere question is not waited for."""
    asked = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    async with (
        delivery_harness(tmp_path, timeout_s=600) as harness,
        await asyncio.start_server(accept, "127.0.0.1", 0) as server,
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
