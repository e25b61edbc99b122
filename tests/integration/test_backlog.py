"""A backlog reaches a Leaderboard that fails and hangs now and then: fast, and each stat once."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from jobtester.domain.stats import Stat
from jobtester.leaderboard.client import LeaderboardClient
from jobtester.leaderboard.delivery import Delivery
from jobtester.leaderboard.options import DeliveryOptions
from jobtester.simulator.leaderboard.faults import Faults
from jobtester.simulator.leaderboard.leaderboard import Leaderboard
from jobtester.store.outbox import Outbox
from jobtester.store.results import Results
from tests.harness.delivery import SECRET, make_result
from tests.harness.store import open_database
from tests.harness.waiting import until

pytestmark = pytest.mark.slow

BACKLOG = int(os.environ.get("BACKLOG", "300"))
MISS_AFTER_S = 2.0
TIMEOUT_S = 240.0
ANSWER_WITHIN_S = 4.0  # less than 30 s, so that the test ends; the posts that hang still outnumber the slots


@pytest.mark.timeout(300)
async def test_a_backlog_is_delivered_beside_errors_and_posts_that_hang(tmp_path: Path) -> None:
    """A fifth of the posts fails and one in seven never gets its answer, yet no slot waits for those."""
    async with open_database(tmp_path / "jobtester.db") as database:
        results, outbox = Results(database), Outbox(database)
        for number in range(1, BACKLOG + 1):
            result = make_result(number, time.time() - 1)
            assert await results.record(result, Stat.from_result(result, "FRA"))
        async with Leaderboard(secret=SECRET, seed=1) as leaderboard:
            client = LeaderboardClient(leaderboard.url, SECRET, timeout_s=ANSWER_WITHIN_S)
            options = DeliveryOptions("FRA", miss_after_s=MISS_AFTER_S)
            delivery = Delivery.create(outbox, client, options)
            await delivery.open()

            async def all_posted() -> bool:
                return not (await outbox.counts())["pending"]

            async def all_settled() -> bool:
                return not await outbox.count_waiting()

            stop, began = asyncio.Event(), time.monotonic()
            leaderboard.faults = Faults(post_errors=0.2, withheld_answers=0.15)
            running = asyncio.create_task(delivery.run(stop))
            try:
                await until(lambda: leaderboard.rows, "a row is stored")
                first_s = time.monotonic() - began
                await until(all_posted, "every stat is posted once", timeout_s=TIMEOUT_S)
                posted_s = time.monotonic() - began
                stored = len(leaderboard.rows)
                if BACKLOG <= 300:  # with more, the failures go on to the end, for the figures
                    leaderboard.faults = Faults()
                await until(all_settled, "every stat is delivered", timeout_s=TIMEOUT_S)
                all_s = time.monotonic() - began
            finally:
                stop.set()
                await running
                await delivery.close()
            print(  # noqa: T201 -- figures
                f"first after {first_s:.2f} s; {stored} stored after {posted_s:.1f} s: {stored / posted_s:.0f} stats/s;"
                f" all {BACKLOG} after {all_s:.1f} s: {BACKLOG / all_s:.0f} stats/s; {dict(leaderboard.posts)}"
            )
            rows = Counter(row.stat["model"] for row in leaderboard.rows)
            assert rows == Counter(f"model-{number}" for number in range(1, BACKLOG + 1))
            assert (await outbox.counts())["delivered"] == BACKLOG
            assert first_s < 10
            # Were slots held by posts that hang, so many of those would take this long by themselves.
            assert posted_s < 0.15 * BACKLOG * ANSWER_WITHIN_S / options.parallel
