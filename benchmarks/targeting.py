"""How long a tick takes in each way of targeting, against the least that it could take.

A mean job lasts ten hand-overs of the lease: 0.7 s for 50 ms of retry window and 20 ms to settle.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from benchmarks import asking
from benchmarks.network import network
from benchmarks.rows import Row
from benchmarks.tester import Tick, tester

PIPELINES = ["llm", "image-to-text", "audio-to-text", "segment-anything-2", "text-to-speech"]


async def measure() -> list[Row]:
    """Run the same made-up work through every mode."""
    few: dict[str, Any] = {
        "seed": 11, "orchestrators": 8, "models_per_pipeline": 2, "pipelines": PIPELINES, "latency_s": [0.4, 1.0],
    }  # fmt: skip
    many: dict[str, Any] = {**few, "orchestrators": 60, "latency_s": [0.1, 1.5]}
    async with asyncio.TaskGroup() as group:  # side by side, since all of them mostly wait
        alone = group.create_task(_tick("tester", few))
        exclusive4 = await _tick("tester", few, per_orchestrator=4)
        gateways = await _tick("tester", "tester", "tester", "tester", few, known=True)
    exclusive = alone.result()
    overlap = await _tick("tester", few, gateway={"overlap": True})
    query = await _tick("query", many)
    asked_s = await _asked(many)
    sequential_s = _total(query)
    return [
        Row.with_bar(
            "sequential tester, 60 orchestrators × 10 jobs: all round trips one after the other", sequential_s, "s"
        ),
        Row.with_bar("query, 64 in flight: wall time", query.wall_s, "s"),
        Row.with_bar(
            "query, 64 in flight: wall time ÷ lower bound", query.wall_s / _bound(query, 60), "×", at_most=1.10
        ),
        Row.with_bar(
            "query, 64 in flight: times faster than sequential", sequential_s / query.wall_s, "×", at_least=25
        ),
        Row.with_bar("longest block of the event loop in that tick", query.lag_s * 1000, "ms", at_most=20),
        Row.with_bar("/orchestrators under a full tick, p99 as a gateway sees it", asked_s * 1000, "ms", at_most=10),
        Row.with_bar("exclusive, 8 orchestrators × 10 jobs: wall time", exclusive.wall_s, "s"),
        Row.with_bar("exclusive: wall time ÷ lower bound (all in a row)", exclusive.wall_s / _total(exclusive), "×"),
        Row.with_bar("exclusive, per_orchestrator 4: wall time", exclusive4.wall_s, "s"),
        Row.with_bar(
            "exclusive, per_orchestrator 4: wall time ÷ lower bound", exclusive4.wall_s / (_total(exclusive4) / 4), "×"
        ),
        Row.with_bar("overlap on one gateway: wall time", overlap.wall_s, "s"),
        Row.with_bar("overlap: times faster than exclusive", exclusive.wall_s / overlap.wall_s, "×", at_least=5),
        Row.with_bar("4 webhook gateways, in a second tick: wall time", gateways.wall_s, "s"),
        Row.with_bar(
            "4 webhook gateways, in a second tick: wall time ÷ lower bound",
            gateways.wall_s / _bound(gateways, 4),
            "×",
            at_most=1.10,
        ),
    ]


async def _tick(*given: Any, known: bool = False, **more: Any) -> Tick:
    """Run a tick; `known` runs another one before it, from which the tester knows how long jobs take."""
    *modes, made = given
    async with network(*modes, **made) as remote, tester(remote, **more) as running:
        if known:
            await running.tick()
        return await running.tick()


async def _asked(made: dict[str, Any]) -> float:
    """Run a full tick; give the 99th percentile of how long a gateway that has no jobs waits for its answer."""
    idle = {"name": "idle", "url": "http://127.0.0.1:1", "targeting": "webhook"}
    async with (
        network("tester", "query", **made) as remote,
        tester(remote, gateways=[idle]) as running,
        asking.gateway(f"http://127.0.0.1:{running.daemon.port}/orchestrators/idle") as waits_s,
    ):
        await running.tick()
    return statistics.quantiles(waits_s, n=100)[98]


def _total(tick: Tick) -> float:
    """Sum all round trips: what one job at a time would take at least."""
    return tick.report.work_s


def _bound(tick: Tick, parallel: int) -> float:
    """Give the least time: the longest chain on one orchestrator, or all work spread evenly."""
    return max(tick.report.longest_orchestrator_s, _total(tick) / parallel)
