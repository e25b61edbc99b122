"""Measure a tick over live runners: unpaid and paid requests, and sessions, all over TLS without a gateway."""

from __future__ import annotations

import statistics

from benchmarks.every_kind import ECHO, live_runner_tables
from benchmarks.network import network
from benchmarks.rows import Row
from benchmarks.tester import tester

_ORCHESTRATORS = 60
_IN_FLIGHT = 64
_TIMEOUTS = {"timeout": "20s", "cold_timeout": "20s"}


async def measure() -> list[Row]:
    """Run two ticks; from the second on the tester knows how long jobs take."""
    pipelines = {"hello-world": _TIMEOUTS, "runner-chat-completions": _TIMEOUTS, "echo": ECHO}
    async with network(live_runners=_ORCHESTRATORS, latency_s=[0.2, 1.0]) as remote:
        sections = {"live_runner": live_runner_tables(remote)}
        async with tester(remote, sections=sections, pipelines=pipelines, jobs=_IN_FLIGHT) as running:
            await running.run_tick()
            tick = await running.run_tick()
            truth = {
                request["request_id"]: request["sent_at"] - request["received_at"]
                for request in await remote.send_command(do="runner requests")
                if request["kind"] == "app" and request["outcome"] == "served"
            }
            rows = [row for row in await running.results() if row.tick == tick.report.tick]
    assert tick.report.settled == 3 * _ORCHESTRATORS, tick.report.as_json()
    assert all(row.outcome == "passed" for row in rows), tick.report.as_json()
    unpaid = [row for row in rows if row.pipeline.endswith("hello-world")]
    errors = [row.round_trip_s - truth[row.id] for row in unpaid]
    bound_s = max(tick.report.longest_orchestrator_s, tick.report.work_s / _IN_FLIGHT)
    return [
        Row.with_bar("live runners, 180 jobs, in a second tick: wall time", tick.wall_s, "s"),
        Row.with_bar("live runners: wall time ÷ lower bound", tick.wall_s / bound_s, "×"),
        Row.with_bar("live runners: processor time per job", tick.cpu_s / len(rows) * 1000, "ms"),
        Row.with_bar("live runners: round-trip error, median", statistics.median(errors) * 1000, "ms", at_most=1),
    ]
