"""Measure jobs per second, processor time per job and the error of the round trip, beside a bare aiohttp client."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from benchmarks.network import Remote, network
from benchmarks.rows import Row
from benchmarks.tester import tester
from benchmarks.video import stream_beside

_IN_FLIGHT = 64
_JOBS = 1_500
_ROUNDS = 3


async def measure() -> list[Row]:
    """Measure without latency, then the clock with images being decoded."""
    return [*await _measure_speed(), *await _measure_clock()]


async def _measure_speed() -> list[Row]:
    """Send jobs that are answered at once, with everything on, and the same with nothing around them."""
    scenario: dict[str, Any] = {
        "seed": 7, "orchestrators": _JOBS // 10, "models_per_pipeline": 10, "pipelines": ["llm"],
        "latency_s": [0, 0], "info_s": [0, 0],
    }  # fmt: skip
    walls, cpus, lags, rates = [], [], [], []
    async with network("query", **scenario) as remote, tester(remote, jobs=_IN_FLIGHT, per_orchestrator=4) as running:
        await running.run_tick()
        for _ in range(_ROUNDS):  # side by side, since machines change their pace
            tick = await running.run_tick()
            done = tick.report.settled
            assert done == tick.report.planned == _JOBS, tick.report.as_json()
            assert running.daemon.delivery is not None
            # Else delivery would go on during the bare client's turn, and slow that down.
            await running.daemon.delivery.drain()
            wall, cpu, _ = await _send_bare(remote, "llm", _JOBS)
            walls.append(wall / tick.wall_s)
            cpus.append(tick.cpu_s / cpu)
            lags.append(tick.lag_s)
            rates.append(done / tick.wall_s)
    return [
        Row.with_bar("jobs per second, zero latency, everything on", statistics.median(rates), "/s"),
        Row.with_bar("the same ÷ bare aiohttp", statistics.median(walls), "×", at_least=0.5),
        Row.with_bar("processor time per job ÷ bare aiohttp", statistics.median(cpus), "×", at_most=2.5),
        Row.with_bar("longest block of the event loop, zero latency", statistics.median(lags) * 1000, "ms"),
    ]


async def _measure_clock() -> list[Row]:
    """Compare round trips with the network's own: from the whole request to the last byte of the response."""
    scenario: dict[str, Any] = {
        "seed": 9, "orchestrators": 64, "models_per_pipeline": 4, "pipelines": ["text-to-image"],
        "latency_s": [1.0, 3.0],
    }  # fmt: skip
    async with network("query", **scenario) as remote:
        async with tester(remote, jobs=_IN_FLIGHT) as running:
            alone = await running.run_tick()
            async with stream_beside():
                beside = await running.run_tick()
            truth = {job["request_id"]: job for job in await remote.logged_jobs()}
            errors: dict[str, list[float]] = {alone.report.tick: [], beside.report.tick: []}
            for row in await running.results():
                if row.id in truth and row.outcome == "passed":
                    true_s = truth[row.id]["sent_at"] - truth[row.id]["received_at"]
                    errors[row.tick].append(row.round_trip_s - true_s)
        before = len(truth)
        _, _, round_trips = await _send_bare(remote, "text-to-image", 64 * 4)
        served = {job["request_id"]: job for job in (await remote.logged_jobs())[before:]}
        bare = [
            round_trips[name] - (job["sent_at"] - job["received_at"])
            for name, job in served.items()
            if name in round_trips
        ]
    alone_cuts, beside_cuts = (_quantiles(values) for values in errors.values())
    bare_cuts = _quantiles(bare)
    return [
        Row.with_bar("round-trip error, median", alone_cuts[0] * 1000, "ms", at_most=0.5),
        Row.with_bar("round-trip error, p99", alone_cuts[1] * 1000, "ms", at_most=5),
        Row.with_bar("round-trip error beside a live video, median", beside_cuts[0] * 1000, "ms", at_most=0.5),
        Row.with_bar("round-trip error beside a live video, p99", beside_cuts[1] * 1000, "ms", at_most=5),
        Row.with_bar("round-trip error of bare aiohttp, median", bare_cuts[0] * 1000, "ms"),
        Row.with_bar("round-trip error, p99 ÷ bare aiohttp's", alone_cuts[1] / bare_cuts[1], "×", at_most=2),
    ]


async def _send_bare(remote: Remote, pipeline: str, count: int) -> tuple[float, float, dict[str, float]]:
    """Send jobs with a plain client; return wall time, processor time and round trips in seconds."""
    round_trips: dict[str, float] = {}
    gateway = remote.gateways[0]["url"]
    nodes = await _find_capabilities(remote)
    jobs = iter([nodes[index % len(nodes)] for index in range(count)])

    async def worker(session: aiohttp.ClientSession, number: int) -> None:
        for index, (uri, model) in enumerate(jobs):
            name = f"bare-{number}-{index}"
            body = {
                "model": model,
                "messages": [{"role": "user", "content": "What is 6 times 7?"}],
                "stream": False,
                "max_tokens": 16,
            }
            image = {"model_id": model, "prompt": "a red circle", "width": 512, "height": 512}
            began = time.perf_counter()
            async with session.post(
                f"{gateway}/{pipeline}",
                params={"orchestrator": uri},
                data=orjson.dumps(body if pipeline == "llm" else image),
                headers={"Content-Type": "application/json", "X-Request-ID": name},
            ) as response:
                content = await response.read()
                assert response.status == 200, content[:200]
            round_trips[name] = time.perf_counter() - began

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(worker(session, number) for number in range(_IN_FLIGHT)))
        return time.perf_counter() - began, time.process_time() - cpu, round_trips


async def _find_capabilities(remote: Remote) -> list[tuple[str, str]]:
    """Return (service URI, model) of each that has served a job."""
    served = await remote.logged_jobs()
    return sorted({(job["service_uri"], job["model"]) for job in served if job["service_uri"]})


def _quantiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    cuts = statistics.quantiles(values, n=100)
    return statistics.median(values), cuts[98]
