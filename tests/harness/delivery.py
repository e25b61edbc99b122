"""A delivery with a real outbox file, the simulated Leaderboard, and time that is moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.leaderboard.client import LeaderboardClient
from jobtester.leaderboard.delivery import Delivery
from jobtester.leaderboard.options import DeliveryOptions
from jobtester.simulator.leaderboard.faults import Faults
from jobtester.simulator.leaderboard.leaderboard import Leaderboard
from jobtester.store.database import Database
from jobtester.store.outbox import Outbox, OutboxEntry
from jobtester.store.results import Results
from tests.harness.store import open_database

SECRET = "secret"


@dataclass
class ManualClock:
    """A wall clock and a monotonic one."""

    wall_s: float = 1_800_000_000.0
    monotonic_s: float = 1000.0

    def advance(self, seconds: float) -> None:
        """Advance both clocks."""
        self.wall_s += seconds
        self.monotonic_s += seconds

    def set_back(self, seconds: float) -> None:
        """Set the wall clock back, as an operator may."""
        self.wall_s -= seconds

    def wall(self) -> float:
        """Return Unix seconds."""
        return self.wall_s

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return self.monotonic_s


@dataclass
class DeliveryHarness:
    """Results that are recorded at one end, and rows of the Leaderboard at the other."""

    database: Database
    results: Results
    outbox: Outbox
    delivery: Delivery
    leaderboard: Leaderboard
    clock: ManualClock
    _count: int = field(default=0)

    async def record(self, count: int = 1, *, region: str = "FRA") -> None:
        """Record results, a second apart, with their stats."""
        for _ in range(count):
            self._count += 1
            self.clock.advance(1)
            result = make_result(self._count, self.clock.wall())
            assert await self.results.record(result, Stat.from_result(result, region))

    async def run(self, seconds: float = 0.0) -> None:
        """Advance the clock, and let delivery do all that is due then."""
        self.clock.advance(seconds)
        while await self.delivery.run_once() or self.delivery.poster.in_flight.late_count:
            await self.delivery.poster.in_flight.finish()

    async def states(self) -> dict[str, int]:
        """Count entries by state."""
        return {state: count for state, count in (await self.outbox.counts()).items() if count}

    async def entry(self, number: int = 1) -> OutboxEntry:
        """Return one entry, by the order of recording."""
        entries = await self.outbox.entries(states=tuple(await self.outbox.counts()))
        return entries[number - 1]

    def set_faults(self, **faults: Any) -> None:
        """Make the Leaderboard fail in these ways from now on, and in no others."""
        self.leaderboard.faults = Faults(**faults)

    def stored_numbers(self) -> list[int]:
        """Return the numbers of the results that the Leaderboard has stored, in that order."""
        return [int(row.stat["model"].removeprefix("model-")) for row in self.leaderboard.rows]


def make_result(number: int, started_at: float) -> Result:
    """Return a passed result; the number is in its model."""
    job = Job(
        id=f"job-{number}",
        tick="t",
        orchestrator=Orchestrator(f"0x{number:040x}", f"https://o{number}.example:8935", ()),
        capability=Capability("llm", f"model-{number}"),
        pipeline_name="Llm",
        timeout_s=60,
        expected_s=1,
    )
    return Result(
        job,
        Verdict.from_code("ok"),
        Attribution(AttributionKind.PROVEN),
        "g",
        "query",
        started_at,
        0.25 + number / 7,
        200,
        request='{"prompt": "what is six times seven?"}',
        response='{"answer": "42"}',
    )


@asynccontextmanager
async def delivery_harness(
    folder: Path, *, region: str = "FRA", timeout_s: float = 30.0, **options: Any
) -> AsyncIterator[DeliveryHarness]:
    """Open everything; `options` are fields of DeliveryOptions. Nothing is posted until `run()`."""
    clock = ManualClock()
    async with (
        open_database(folder / "jobtester.db") as database,
        Leaderboard(secret=SECRET, clock=clock.wall) as leaderboard,
    ):
        outbox = Outbox(database, clock.wall)
        client = LeaderboardClient(leaderboard.url, SECRET, timeout_s=timeout_s, clock=clock.wall)
        delivery_options = DeliveryOptions(region, **{"parallel": 1, **options})
        delivery = Delivery.create(outbox, client, delivery_options, clock=clock.wall, monotonic=clock.monotonic)
        await delivery.open()
        try:
            yield DeliveryHarness(database, Results(database, clock.wall), outbox, delivery, leaderboard, clock)
        finally:
            await delivery.close()
