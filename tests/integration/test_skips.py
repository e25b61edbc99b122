"""What ticks skip is recorded as spans of time, and shown until it is tested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jobtester.domain.orchestrators import Capability
from jobtester.domain.plan import Skip
from jobtester.store.database import Database
from jobtester.store.retention import Retention
from jobtester.store.skips import Skips
from jobtester.store.ticks import Ticks
from tests.harness.store import open_database

ADDRESS, URI = f"0x{1:040x}", "https://o1.example:8935"
BUDGET = Skip(ADDRESS, URI, "llm", "m", "budget", Capability("llm", "m"))
DISABLED = Skip(ADDRESS, URI, "llm", "m", "disabled", Capability("llm", "m"))
EXCLUDED = Skip(f"0x{2:040x}", "https://o2.example:8935", "", "", "excluded")


async def run_tick(database: Database, at: float, *skips: Skip, state: str = "finished") -> None:
    """Record a tick that started at an instant and skipped these."""
    ticks = Ticks(database)
    await ticks.start(f"t{at}", at, 1, "cron")
    await Skips(database).record(skips, at)
    await ticks.finish(f"t{at}", state, at + 1, {"started_at": at, "seed": 1, "trigger": "cron"})


async def test_a_skip_that_lasts_is_one_row(tmp_path: Path) -> None:
    """Ticks in a row extend it, one that tests the capability ends it, another reason begins a new one."""
    async with open_database(tmp_path / "a.db") as database:
        for at in (10.0, 20.0, 30.0):
            await run_tick(database, at, BUDGET, BUDGET, EXCLUDED)
        await run_tick(database, 40.0, EXCLUDED)
        await run_tick(database, 50.0, BUDGET, EXCLUDED)
        await run_tick(database, 60.0, DISABLED, EXCLUDED)
        rows = await database.read_rows("SELECT pipeline, reason, since, until FROM skips ORDER BY since, pipeline")
        assert rows == [
            ("", "excluded", 10, 60), ("llm", "budget", 10, 30), ("llm", "budget", 50, 50), ("llm", "disabled", 60, 60),
        ]  # fmt: skip
        skips = Skips(database)
        assert [(row.reason, row.since) for row in await skips.current()] == [("disabled", 60), ("excluded", 10)]
        assert [row.reason for row in await skips.current(ADDRESS)] == ["disabled"]
        assert [[row.reason for row in await skips.at(at)] for at in (20.0, 40.0, 50.0)] == [
            ["budget", "excluded"], ["excluded"], ["budget", "excluded"],
        ]  # fmt: skip


async def test_a_tick_that_planned_nothing_ends_no_skip(tmp_path: Path) -> None:
    """Without discovery no skip is added, and what is known stays known."""
    async with open_database(tmp_path / "a.db") as database:
        await run_tick(database, 10.0, EXCLUDED)
        await run_tick(database, 20.0, state="failed")
        assert [row.since for row in await Skips(database).current()] == [10]
        await run_tick(database, 30.0, EXCLUDED)
        assert [(row.since, row.until) for row in await Skips(database).current()] == [(10, 30)]
        await run_tick(database, 40.0)
        assert await Skips(database).current() == [], "all is tested"


async def test_old_skips_are_deleted(tmp_path: Path) -> None:
    """With the results of their time; those that still hold stay, however long ago they began."""
    async with open_database(tmp_path / "a.db") as database:
        await run_tick(database, 10.0, BUDGET, EXCLUDED)
        await run_tick(database, 1000.0, EXCLUDED)
        await Retention(database).run(keep_s=500, now=1100)
        assert [row.reason for row in await Skips(database).current()] == ["excluded"]
        assert await database.read_rows("SELECT count(*) FROM skips") == [(1,)]


async def test_the_operators_words_are_kept_with_a_pause(tmp_path: Path) -> None:
    """The newest ones, where they change while the pause lasts."""
    async with open_database(tmp_path / "a.db") as database:
        for at, note in ((10.0, "new GPU"), (20.0, "new GPU, and it takes longer")):
            await run_tick(database, at, replace(BUDGET, reason="paused", note=note))
        assert [(row.note, row.since) for row in await Skips(database).current()] == [
            ("new GPU, and it takes longer", 10)
        ]
