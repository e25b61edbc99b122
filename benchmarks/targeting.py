"""Measure how long a tick takes in each way of targeting, against its lower bound.

A mean job lasts ten hand-overs of the lease: 0.7 s for 50 ms of retry window and 20 ms to settle.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from benchmarks.network import network
from benchmarks.polling_gateway import poll_orchestrators
from benchmarks.rows import Row
from benchmarks.tester import MeasuredTick, tester

PIPELINES = ["llm", "image-to-text", "audio-to-text", "segment-anything-2", "text-to-speech"]


async def measure() -> list[Row]:
    """Run the same generated jobs through every mode."""
    few: dict[str, Any] = {
        "seed": 11, "orchestrators": 8, "models_per_pipeline": 2, "pipelines": PIPELINES, "latency_s": [0.4, 1.0],
    }  # fmt: skip
    uneven = {**few, "orchestrators": 13}  # they cannot be divided evenly among four gateways
    many: dict[str, Any] = {**few, "orchestrators": 60, "latency_s": [0.1, 1.5]}
    async with asyncio.TaskGroup() as group:  # side by side, since all of them mostly wait
        alone = group.create_task(_measure_tick("tester", few))
        exclusive4 = await _measure_tick("tester", few, per_orchestrator=4)
        gateways = await _measure_tick("tester", "tester", "tester", "tester", uneven, warm_up=True)
    exclusive = alone.result()
    overlap = await _measure_tick("tester", few, gateway={"overlap": True})
    query = await _measure_tick("query", many, warm_up=True)
    webhook_p99_s = await _measure_webhook(many)
    sequential_s = _total_s(query)
    return [
        Row.with_bar(
            "sequential tester, 60 orchestrators × 10 jobs: all round trips one after the other", sequential_s, "s"
        ),
        Row.with_bar("query, 64 in flight, in a second tick: wall time", query.wall_s, "s"),
        Row.with_bar(
            "query, 64 in flight, in a second tick: wall time ÷ lower bound",
            query.wall_s / _lower_bound_s(query, 60),
            "×",
            at_most=1.05,
        ),
        Row.with_bar(
            "query, 64 in flight: times faster than sequential", sequential_s / query.wall_s, "×", at_least=25
        ),
        Row.with_bar("longest block of the event loop in that tick", query.lag_s * 1000, "ms", at_most=20),
        Row.with_bar(
            "/orchestrators under a full tick, p99 as a gateway sees it", webhook_p99_s * 1000, "ms", at_most=10
        ),
        Row.with_bar("exclusive, 8 orchestrators × 10 jobs: wall time", exclusive.wall_s, "s"),
        Row.with_bar("exclusive: wall time ÷ lower bound (all in a row)", exclusive.wall_s / _total_s(exclusive), "×"),
        Row.with_bar("exclusive, per_orchestrator 4: wall time", exclusive4.wall_s, "s"),
        Row.with_bar(
            "exclusive, per_orchestrator 4: wall time ÷ lower bound",
            exclusive4.wall_s / (_total_s(exclusive4) / 4),
            "×",
        ),
        Row.with_bar("overlap on one gateway: wall time", overlap.wall_s, "s"),
        Row.with_bar("overlap: times faster than exclusive", exclusive.wall_s / overlap.wall_s, "×", at_least=5),
        Row.with_bar("4 webhook gateways, 13 orchestrators, in a second tick: wall time", gateways.wall_s, "s"),
        Row.with_bar(
            "4 webhook gateways, in a second tick: wall time ÷ lower bound",
            gateways.wall_s / _lower_bound_s(gateways, 4),
            "×",
            at_most=1.05,
        ),
    ]


async def _measure_tick(*modes_and_scenario: Any, warm_up: bool = False, **options: Any) -> MeasuredTick:
    """Run a tick; `warm_up` runs another one before it, from which the tester knows how long jobs take."""
    *modes, scenario = modes_and_scenario
    async with network(*modes, **scenario) as remote, tester(remote, **options) as running:
        if warm_up:
            await running.run_tick()
        return await running.run_tick()


async def _measure_webhook(scenario: dict[str, Any]) -> float:
    """Return the 99th percentile of the webhook's response time in a full tick, for a gateway without jobs."""
    idle = {"name": "idle", "url": "http://127.0.0.1:1", "targeting": "webhook"}
    async with (
        network("tester", "query", **scenario) as remote,
        tester(remote, gateways=[idle]) as running,
        poll_orchestrators(f"http://127.0.0.1:{running.daemon.port}/orchestrators/idle") as waits_s,
    ):
        await running.run_tick()
    return statistics.quantiles(waits_s, n=100)[98]


def _total_s(tick: MeasuredTick) -> float:
    """Return the sum of all round trips, the lower bound for one job at a time."""
    return tick.report.work_s


def _lower_bound_s(tick: MeasuredTick, parallel: int) -> float:
    """Return the lower bound: the jobs of the busiest orchestrator, or all jobs spread evenly."""
    return max(tick.report.longest_orchestrator_s, _total_s(tick) / parallel)
