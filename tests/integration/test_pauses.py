"""Orchestrators under maintenance are not tested, and everybody reads why; a changed window is in force at once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import aiohttp

from jobtester.configuration import Configuration
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec
from tests.harness.simulated import config_tables, simulated_tester

SCENARIO = generate(seed=1, orchestrators=3, pipelines=("llm",), latency_s=(0.0, 0.01), gateways=(GatewaySpec("one"),))


async def test_the_overview_says_what_is_paused(tmp_path: Path) -> None:
    """While a window is open, with how many orchestrators, until when and why; other windows are not shown."""
    windows = [
        {"from": "2020-01-01", "until": "2120-01-01", "orchestrators": [SCENARIO.orchestrators[0].address],
         "reason": "moved <to> Oslo"},
        {"from": "2020-01-01", "reason": "the gateway is replaced"},
        {"until": "2020-01-01", "reason": "long ago"},
    ]  # fmt: skip
    async with simulated_tester(SCENARIO, tmp_path, pause=windows) as tester, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{tester.daemon.port}/") as answer:
            banners = re.findall(r'<p class="banner" role="note">(Paused.*?)</p>', await answer.text())
        assert [re.sub("<.*?>", "", banner) for banner in banners] == [
            "Paused, 1 orchestrator, until 2120-01-01 00:00:00 UTC: moved &lt;to&gt; Oslo",
            "Paused, all orchestrators: the gateway is replaced",
        ]


async def test_a_paused_orchestrator_gets_no_job_until_the_window_is_removed(tmp_path: Path) -> None:
    """Page and API show the operator's words; the clock and not the number of ticks decides."""
    paused = SCENARIO.orchestrators[0]
    window = {
        "from": "2026-01-01", "until": "2026-01-02", "orchestrators": [paused.address], "reason": "moved <to> Oslo",
    }  # fmt: skip
    async with simulated_tester(SCENARIO, tmp_path, pause=[window]) as tester, aiohttp.ClientSession() as session:
        coordinator = tester.daemon.coordinator
        coordinator.planner.clock = lambda: 1_767_225_600.0  # 2026-01-01T00:00:00Z
        report = await tester.tick()
        assert (report.planned, report.skipped["paused"]) == (2, 1)
        base = f"http://127.0.0.1:{tester.daemon.port}"
        async with session.get(f"{base}/api/ticks/last") as answer:
            assert (await answer.json())["report"]["pauses"] == {"moved <to> Oslo": 1}
        async with session.get(f"{base}/t/{report.tick}") as answer:
            assert "paused: moved &lt;to&gt; Oslo" in await answer.text()
        coordinator.planner.clock = lambda: 1_767_225_600.0 + 86_400
        assert (await tester.tick()).planned == 3
        coordinator.planner.clock = lambda: 1_767_225_600.0
        assert (await tester.tick()).planned == 2
        changed = Configuration.from_tables(config_tables(tester.network, tmp_path), origin="test").settings
        coordinator.reconfigure(replace(coordinator.planner.inputs, settings=changed))
        assert (await tester.tick()).planned == 3
