"""Stats that were answered `ok` and are not stored are noticed, and posted once more."""

from __future__ import annotations

from pathlib import Path

from jobtester.simulator.leaderboard.leaderboard import SEEDED_REGIONS
from tests.harness.delivery import delivery_harness


async def test_a_delivered_stat_that_is_not_stored_is_posted_once_more(tmp_path: Path) -> None:
    """The region lost its row after it was asked for: the post is answered `ok`, and the audit notices."""
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
        assert (harness.delivery.status.lost, harness.delivery.status.problem) == (0, ""), "the stat is shown by now"
        assert await harness.states() == {"delivered": 2}


async def test_a_missed_stat_is_read_back_until_that_is_settled(tmp_path: Path) -> None:
    """One look-up proves no absence; another stat of the tick that is shown meanwhile does not end the search."""
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


async def test_a_recreated_database_gets_each_stat_once_more(tmp_path: Path) -> None:
    """Rows, control rows and the region vanish: what was lost is reported and posted again, and nothing is doubled."""
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
