"""A soak: ticks back to back with faults leave memory, open files, threads, tasks and processes where they were.

`make soak MINUTES=30` runs it for longer than the suite does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks import every_kind
from benchmarks import tester as bench
from benchmarks.network import Remote, network

pytestmark = pytest.mark.slow

MINUTES = float(os.environ.get("SOAK_MINUTES", "0.25"))
_ROUNDS = 4
_WARM_SHARE = 0.5  # of the time: what fills once (pools, page caches, arenas of threads) is full, and what leaks is not
_POOLS = 12  # kept connections, readers of the store and workers: bounded pools that fill when they are first needed
_MAX_MEMORY_GROWTH = 1.1
_BATCH = ["llm", "text-to-image", "image-to-text"]


@dataclass(frozen=True, slots=True)
class HeldResources:
    """What the process holds between two ticks."""

    memory_mb: float
    files: int
    threads: int
    tasks: int
    processes: int


def measure_resources() -> HeldResources:
    """Look at this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return HeldResources(
        int(status["VmRSS"].split()[0]) / 1024,
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
        # The server has a task for each connection that a gateway keeps; connections count among the files.
        sum(getattr(task.get_coro(), "__qualname__", "") != "RequestHandler.start" for task in asyncio.all_tasks()),
        count_children(),
    )


def summarize(choose: Callable[[Iterable[float]], float], samples: list[HeldResources]) -> HeldResources:
    """Return the least or most that was held of each kind."""
    return HeldResources(*(choose(getattr(sample, name) for sample in samples) for name in HeldResources.__slots__))  # type: ignore[arg-type]


def count_children() -> int:
    """Count the processes that this one has started: checkers, decoders, and the simulated network."""
    children = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        children += fields[1] == str(os.getpid())
    return children


@dataclass(slots=True)
class Soak:
    """A tester that runs rounds of ticks, and what all its ticks made."""

    remote: Remote
    running: bench.Tester
    ticks_per_round: int
    ticks: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    async def run_rounds(self, count: int, until: float) -> list[HeldResources]:
        """Run at least `count` rounds, and more until an instant; return the resources held after each."""
        samples: list[HeldResources] = []
        while len(samples) < count or time.monotonic() < until:
            for _ in range(self.ticks_per_round):
                report = (await self.running.run_tick()).report
                assert report.settled == report.planned > 0, report.as_json()
                self.outcomes.update(report.outcomes)
                self.ticks += 1
            assert self.running.daemon.delivery is not None
            async with asyncio.timeout(100):
                await self.running.daemon.delivery.drain()
            samples.append(measure_resources())
        return samples

    async def check_exactly_once(self) -> None:
        """Compare results, outbox and the Leaderboard's rows: each scored result has one stat, each stat one row."""
        results = Counter(result.outcome for result in await self.running.results())
        assert +self.outcomes == results
        scored = results["passed"] + results["failed"]
        states = {state: count for state, count in (await self.running.daemon.outbox.counts()).items() if count}
        assert states == {"delivered": scored}
        rows = await self.remote.send_command(do="leaderboard", faults={})
        assert rows == {"rows": scored, "distinct": scored}
        assert results["failed"] > 0, "the network has faults, and none was met"


@asynccontextmanager
async def batch_soak() -> AsyncIterator[Soak]:
    """Run many batch jobs through a webhook and a query gateway, with faults of every kind and pictures to look at."""
    async with (
        network(
            "tester", "query", seed=5, orchestrators=16, pipelines=_BATCH, latency_s=[0.0, 0.05], fault_share=0.5
        ) as remote,
        bench.tester(
            remote, busy_backoff="20ms", busy_retries=1, jobs=32,
            pipelines={name: {"timeout": "60s"} for name in _BATCH},
        ) as running,
    ):  # fmt: skip
        yield Soak(remote, running, ticks_per_round=1)


@asynccontextmanager
async def every_kind_soak() -> AsyncIterator[Soak]:
    """Run jobs of every kind, with a Leaderboard that fails a tenth of the posts."""
    async with every_kind.tester() as (remote, running):
        await remote.send_command(do="leaderboard", faults={"post_errors": 0.05, "drop_after_store": 0.05})
        yield Soak(remote, running, ticks_per_round=2)


@pytest.mark.timeout(int(MINUTES * 60) + 400)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which Linux alone has")
@pytest.mark.parametrize(("open_soak", "share"), [(batch_soak, 0.25), (every_kind_soak, 0.75)], ids=["batch", "every"])
async def test_ticks_back_to_back_leave_nothing_behind(
    open_soak: Callable[[], AbstractAsyncContextManager[Soak]], share: float
) -> None:
    """And each result is counted exactly once, whatever failed on the way."""
    async with open_soak() as soak:
        began, duration_s = time.monotonic(), MINUTES * 60 * share
        warm = await soak.run_rounds(_ROUNDS, began + _WARM_SHARE * duration_s)
        later = await soak.run_rounds(_ROUNDS, began + duration_s)
        await soak.check_exactly_once()
    most = summarize(max, warm)
    least = summarize(min, later[len(later) // 2 :])  # a sample may catch something at work; a leak is in each of them
    sys.stdout.write(f"{soak.ticks} ticks, {dict(soak.outcomes)}: {warm[-1]} -> {later[-1]}\n")
    memory_mb = [round(sample.memory_mb) for sample in warm + later]
    sys.stdout.write(f"memory in MB, ten times in all: {memory_mb[:: max(1, len(memory_mb) // 10)]}\n")
    assert least.files <= most.files + _POOLS
    assert least.threads <= most.threads + _POOLS
    assert least.tasks <= most.tasks
    assert least.processes <= most.processes + _POOLS
    assert least.memory_mb <= most.memory_mb * _MAX_MEMORY_GROWTH
