"""A soak: ticks back to back with faults leave memory, open files, threads and tasks where they were.

`make soak MINUTES=10` runs it for longer than the suite does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import tester as bench
from benchmarks.network import network

pytestmark = pytest.mark.slow

MINUTES = float(os.environ.get("SOAK_MINUTES", "0.25"))
_WARM_TICKS = 4
_POOLS = 12  # kept connections, readers of the store and workers: bounded pools that fill when they are first needed


@dataclass(frozen=True, slots=True)
class HeldResources:
    """What the process holds between two ticks."""

    memory_mb: float
    files: int
    threads: int
    tasks: int


def measure_resources() -> HeldResources:
    """Look at this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return HeldResources(
        int(status["VmRSS"].split()[0]) / 1024,
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
        len(asyncio.all_tasks()),
    )


async def run_ticks(running: bench.Tester, count: int, until: float) -> list[HeldResources]:
    """Run at least `count` ticks, and more until an instant; return the resources held after each."""
    samples: list[HeldResources] = []
    failed = 0  # the network draws its faults: a single tick may meet none that counts against a node
    while len(samples) < count or time.monotonic() < until:
        report = (await running.run_tick()).report
        assert report.settled == report.planned > 0, report.as_json()
        failed += report.outcomes["failed"]
        assert running.daemon.delivery is not None
        async with asyncio.timeout(100):
            await running.daemon.delivery.drain()
        samples.append(measure_resources())
    assert failed > 0, "the network has faults, and none was met"
    return samples


@pytest.mark.timeout(int(MINUTES * 60) + 240)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which Linux alone has")
async def test_ticks_back_to_back_leave_nothing_behind() -> None:
    """With a webhook and a query gateway, faults of every kind, pictures to look at, and stats delivered."""
    async with (
        network(
            "tester", "query", seed=5, orchestrators=16, pipelines=["llm", "text-to-image", "image-to-text"],
            latency_s=[0.0, 0.05], fault_share=0.5,
        ) as remote,
        bench.tester(
            remote, busy_backoff="20ms", busy_retries=1, jobs=32,
            pipelines={name: {"timeout": "60s"} for name in ("llm", "text-to-image", "image-to-text")},
        ) as running,
    ):  # fmt: skip
        warm = await run_ticks(running, _WARM_TICKS, 0.0)
        later = await run_ticks(running, _WARM_TICKS, time.monotonic() + MINUTES * 60)
    sys.stdout.write(f"{len(later)} ticks after {len(warm)}: {warm[-1]} -> {later[-1]}\n")
    most = HeldResources(*(max(getattr(sample, name) for sample in warm) for name in HeldResources.__slots__))
    last = later[-1]
    assert last.files <= most.files + _POOLS
    assert last.threads <= most.threads + _POOLS
    assert last.tasks <= most.tasks
    assert last.memory_mb <= most.memory_mb * 1.1
