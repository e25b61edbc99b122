"""A stat is posted only to a region that keeps it, and waits while that is not known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jobtester.domain.external_results import ExternalResult
from jobtester.domain.stats import Stat
from tests.harness.delivery import delivery_harness, make_result

PAUSE_S = 2.0  # longer than the circuit breaker's first pause


async def test_a_region_that_vanishes_is_waited_for(tmp_path: Path) -> None:
    """400 invalid region after it was valid: nothing is lost or hammered, the reason is shown, and it recovers."""
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
        assert await harness.states() == {"delivered": 1, "pending": 2}, "an unusable region is asked for once a minute"
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


async def test_another_testers_region_is_not_abandoned_while_the_database_is_down(tmp_path: Path) -> None:
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


async def test_another_testers_region_is_not_abandoned_without_asking(tmp_path: Path) -> None:
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
    """Such a post would be answered `ok` and dropped: nothing is posted, and the reason is shown."""
    async with delivery_harness(tmp_path, region="NYC") as harness:
        await harness.record(region="NYC")
        await harness.run()
        await harness.run(600)
        assert await harness.states() == {"pending": 1}
        assert harness.leaderboard.posts["silently_dropped"] == 0
        assert "NYC" in harness.delivery.status.problem
        assert "FRA" in harness.delivery.status.problem, "the usable regions are named"


async def test_a_reload_with_a_usable_region_is_followed_at_once(tmp_path: Path) -> None:
    """Without waiting for the minute after which an unusable region is asked for again."""
    async with delivery_harness(tmp_path, region="NYC") as harness:
        await harness.record(region="FRA")
        await harness.run()
        assert await harness.states() == {"pending": 1}
        options = dataclasses.replace(harness.delivery.options.current, region="FRA")
        harness.delivery.reconfigure(options)
        await harness.run()
        assert await harness.states() == {"delivered": 1}
        assert harness.delivery.status.problem == ""
