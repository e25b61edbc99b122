"""Cold models get their own time limit, and are reported apart from warm ones wherever results are shown."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.harness.simulated import simulated_tester


def network() -> Scenario:
    """Build a quick node, one that never answers, and one that loads its cold model slowly."""
    nodes = tuple(
        OrchestratorSpec(
            address=f"0x{number + 1:040x}",
            service_uri=f"https://o{number}.sim.example:8935",
            models=(ModelSpec("llm", f"m{number}", warm=warm, cold_s=3.0, latency_s=latency),),
        )
        for number, (warm, latency) in enumerate([(True, (0.0, 0.01)), (True, (600.0, 600.0)), (False, (0.0, 0.01))])
    )
    return Scenario("cold", 1, (GatewaySpec("gateway", mode="query"),), nodes)


async def test_cold_models_have_their_own_limit_and_are_reported_separately(tmp_path: Path) -> None:
    """Three seconds fail a warm model and pass a cold one; stat, report, metrics, API and page show which is which."""
    pipelines = {"llm": {"timeout": "2500ms", "cold_timeout": "60s"}}
    async with simulated_tester(network(), tmp_path, pipelines=pipelines) as tester, aiohttp.ClientSession() as session:
        planned = await tester.daemon.coordinator.planner.plan("t", await tester.daemon.coordinator.planner.discover())
        assert {job.model: job.timeout_s for job in planned.jobs} == {"m0": 2.5, "m1": 2.5, "m2": 60.0}
        report = await tester.tick()
        assert report.as_json()["warmth"] == {"warm": {"passed": 1, "failed": 1}, "cold": {"passed": 1}}
        outcomes = {row.model: (row.warm, row.outcome, row.reason) for row in await tester.results()}
        assert outcomes == {
            "m0": (True, "passed", "ok"), "m1": (True, "failed", "timeout"), "m2": (False, "passed", "ok"),
        }  # fmt: skip
        stored = {row.stat["model"]: row.stat.get("model_is_warm", False) for row in tester.network.leaderboard.rows}
        assert stored == {"m0": True, "m1": True, "m2": False}
        base = f"http://127.0.0.1:{tester.daemon.port}"
        async with session.get(f"{base}/metrics") as answer:
            text = await answer.text()
        counted = {
            (sample.name, sample.labels.get("outcome", ""), sample.labels["warm"]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("pipeline") == "llm" and "warm" in sample.labels and "le" not in sample.labels
        }
        assert counted["jobtester_jobs_total", "passed", "true"] == 1
        assert counted["jobtester_jobs_total", "failed", "true"] == 1
        assert counted["jobtester_jobs_total", "passed", "false"] == 1
        assert counted["jobtester_round_trip_seconds_count", "", "false"] == 1
        assert counted["jobtester_round_trip_seconds_sum", "", "false"] > 3
        async with session.get(f"{base}/t/{report.tick}") as page:
            shown = await page.text()
        assert 'warm models</dt><dd class="small">1 <small>of 2 passed' in shown
        assert 'cold models</dt><dd class="small">1 <small>of 1 passed' in shown
        assert shown.count("<small>cold</small>") == 1
        async with session.get(f"{base}/api/ticks/last") as answer:
            assert (await answer.json())["report"]["warmth"]["cold"] == {"passed": 1}
