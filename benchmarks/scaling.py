"""Measure how time and memory grow with the number of jobs a tick, and over 100 ticks.

Each size is run by a tester in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.network import network
from benchmarks.processes import run_module
from benchmarks.rows import Row
from benchmarks.tester import tester
from jobtester.logs import configure_logs

_IN_FLIGHT = 64
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Measurement:
    """One size: wall and processor time per job in seconds, memory after each tick and at its peak_memory in bytes."""

    wall_s: float
    cpu_s: float
    memory_after: list[float]
    peak_memory: float


async def measure() -> list[Row]:
    """Measure the three sizes one after the other, the smallest for a hundred ticks."""
    small, middle, large = await _run(100, ticks=100), await _run(1_000), await _run(10_000)
    return [
        Row.with_bar("wall time per job, 1,000 ÷ 100 jobs a tick", middle.wall_s / small.wall_s, "×", at_most=1.2),
        Row.with_bar("wall time per job, 10,000 ÷ 100 jobs a tick", large.wall_s / small.wall_s, "×", at_most=1.2),
        Row.with_bar("processor time per job, 1,000 ÷ 100 jobs a tick", middle.cpu_s / small.cpu_s, "×", at_most=1.2),
        Row.with_bar("processor time per job, 10,000 ÷ 100 jobs a tick", large.cpu_s / small.cpu_s, "×", at_most=1.2),
        Row.with_bar("memory, most in a tick of 10,000 jobs", large.peak_memory / _MB, "MB", at_most=200),
        Row.with_bar(
            "memory, growth from 1,000 to 10,000 jobs a tick",
            (large.peak_memory - middle.peak_memory) / _MB,
            "MB",
            at_most=30,
        ),
        Row.with_bar(
            "memory after 100 ticks ÷ after 10", small.memory_after[99] / small.memory_after[9], "×", at_most=1.05
        ),
    ]


async def _run(size: int, *, ticks: int = 1) -> Measurement:
    """Run ticks with `size` jobs each in a process of their own."""
    return Measurement(**await run_module("benchmarks.scaling", json.dumps({"size": size, "ticks": ticks})))


async def _measure(size: int, ticks: int) -> dict[str, Any]:
    scenario: dict[str, Any] = {
        "seed": 7, "orchestrators": size // 10, "models_per_pipeline": 10, "pipelines": ["llm"],
        "latency_s": [0, 0], "info_s": [0, 0],
    }  # fmt: skip
    walls: list[float] = []
    cpus: list[float] = []
    memory_after: list[float] = []
    async with network("query", **scenario) as remote, tester(remote, jobs=_IN_FLIGHT, per_orchestrator=4) as running:
        for _ in range(ticks):
            tick = await running.run_tick()
            done = tick.report.settled
            assert done == tick.report.planned == size, tick.report.as_json()
            walls.append(tick.wall_s / done)
            cpus.append(tick.cpu_s / done)
            # After the tick: what a tick holds while it runs is in the peak.
            memory_after.append(_read_memory("VmRSS"))
        peak_memory = _read_memory("VmHWM")
    return {
        "wall_s": statistics.median(walls),
        "cpu_s": statistics.median(cpus),
        "memory_after": memory_after,
        "peak_memory": peak_memory,
    }


def _read_memory(field: str) -> float:
    """Return what this process holds (VmRSS) or held at its peak (VmHWM) in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(lines[field].split()[0]) * 1024


if __name__ == "__main__":
    configure_logs("error", "console")
    print(json.dumps(asyncio.run(_measure(**json.loads(sys.argv[1])))))
