"""Recording a tick's results in a real store: what is posted at once, what is held, and what waits for the disk."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobtester.errors import StoreError
from jobtester.store.database import Database
from jobtester.store.outbox import Outbox
from jobtester.store.results import Results
from jobtester.tick.recorder import PostingRules, ResultRecorder
from tests.harness.store import NOW, make_result, open_database

RULES = PostingRules(region="FRA", post=True)


@dataclass
class Wakes:
    """Counts how often delivery was woken."""

    count: int = 0

    def __call__(self) -> None:
        """Count one."""
        self.count += 1


@dataclass
class BlockedResults:
    """Results of a store whose disk is full until `is_blocked` is cleared."""

    working: Results
    is_blocked: bool = True
    attempts: int = 0
    was_attempted: asyncio.Event = field(default_factory=asyncio.Event)

    def __getattr__(self, name: str) -> Any:
        """Return the working store's."""
        return getattr(self.working, name)

    async def record(self, *args: Any, **kwargs: Any) -> bool:
        """Record, or fail as a full disk does."""
        self.attempts += 1
        self.was_attempted.set()
        if self.is_blocked:
            raise StoreError("the disk is full")
        return await self.working.record(*args, **kwargs)


def make_recorder(database: Database, rules: PostingRules = RULES, wakes: Wakes | None = None) -> ResultRecorder:
    """Return the recorder of tick "t"."""
    return ResultRecorder(Results(database, lambda: NOW), rules, "t", wakes or Wakes(), lambda: NOW)


async def states(database: Database) -> dict[str, int]:
    """Return the number of outbox entries by state, without those that are 0."""
    counts = await Outbox(database, lambda: NOW).counts()
    return {state: count for state, count in counts.items() if count}


async def test_a_pass_is_posted_and_a_failure_waits_for_it(tmp_path: Path) -> None:
    """Until something has passed, failures may speak of the path; after it they speak of the orchestrators."""
    wakes = Wakes()
    async with open_database(tmp_path / "store.db") as database:
        recorder = make_recorder(database, wakes=wakes)
        await recorder.record(make_result("503", number=1))
        assert (await states(database), wakes.count) == ({"held": 1}, 0)
        await recorder.record(make_result("ok", number=2))
        assert (await states(database), wakes.count) == ({"pending": 2}, 1)
        await recorder.record(make_result("503", number=3))
        assert await states(database) == {"pending": 3}
        assert not await recorder.finish()


async def test_a_tick_in_which_all_fail_alike_is_suspect(tmp_path: Path) -> None:
    """Ten and more, and no pass: nothing of it is posted."""
    async with open_database(tmp_path / "store.db") as database:
        recorder = make_recorder(database)
        for number in range(12):
            await recorder.record(make_result("503", number=number))
        assert await recorder.finish()
        assert await states(database) == {"suspect": 12}


async def test_a_few_failures_of_one_kind_are_not_suspect(tmp_path: Path) -> None:
    """Nine may be true."""
    async with open_database(tmp_path / "store.db") as database:
        recorder = make_recorder(database)
        for number in range(9):
            await recorder.record(make_result("503", number=number))
        assert not await recorder.finish()
        assert await states(database) == {"pending": 9}


@pytest.mark.parametrize(
    ("rules", "code", "posted"),
    [
        (PostingRules(region="FRA", post=False), "ok", {}),
        (RULES, "busy", {}),
        (PostingRules(region="FRA", post=True, unscored=True), "ok", {"pending": 1}),
    ],
)
async def test_only_scored_results_are_posted(
    rules: PostingRules, code: str, posted: dict[str, int], tmp_path: Path
) -> None:
    """And none at all where nothing is to be posted."""
    async with open_database(tmp_path / "store.db") as database:
        await make_recorder(database, rules).record(make_result(code))
        assert await states(database) == posted


async def test_results_wait_for_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    """They are tried again, and no job should begin meanwhile."""
    async with open_database(tmp_path / "store.db") as database:
        recorder = make_recorder(database)
        blocked = BlockedResults(recorder.results)
        recorder.results = blocked  # type: ignore[assignment]
        recording = asyncio.create_task(recorder.record(make_result()))
        await asyncio.wait_for(blocked.was_attempted.wait(), 30)
        await asyncio.sleep(0)
        assert recorder.is_waiting
        blocked.is_blocked = False
        await asyncio.wait_for(recording, 30)
        assert not recorder.is_waiting
        assert blocked.attempts == 2
        assert await states(database) == {"pending": 1}


async def test_giving_up_raises_the_error(tmp_path: Path) -> None:
    """A tester that stops does not wait for a disk."""
    async with open_database(tmp_path / "store.db") as database:
        recorder = make_recorder(database)
        recorder.results = BlockedResults(recorder.results)  # type: ignore[assignment]
        recording = asyncio.create_task(recorder.record(make_result()))
        recorder.give_up()
        with pytest.raises(StoreError, match="disk is full"):
            await asyncio.wait_for(recording, 30)
