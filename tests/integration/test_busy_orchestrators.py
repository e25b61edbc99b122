"""Busy is not failed: it is tried again within bounds, never holds up a tick, and always being busy is shown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.results import Result
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import ByocSpec, GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.harness.simulated import SimulatedTester, simulated_tester

LLM = "meta-llama/Meta-Llama-3.1-8B-Instruct"
CAPTION = "Salesforce/blip-image-captioning-large"


def network(*faults: str, mode: str = "tester", metrics: bool = True, byoc: bool = False) -> Scenario:
    """Build orchestrators with these faults, each for two pipelines."""
    nodes = tuple(
        OrchestratorSpec(
            address=f"0x{number + 1:040x}",
            service_uri=f"https://o{number}.sim.example:8935",
            models=(
                ModelSpec("llm", LLM, latency_s=(0.0, 0.01)),
                ModelSpec("image-to-text", CAPTION, latency_s=(0.0, 0.01)),
            ),
            byoc=(ByocSpec("openai-text-embeddings", "e", latency_s=(0.0, 0.01)),) if byoc else (),
            fault=fault,
        )
        for number, fault in enumerate(faults)
    )
    gateway = GatewaySpec("gateway", mode=mode, retry_window=0.05, metrics=metrics)  # type: ignore[arg-type]
    return Scenario("busy", 1, (gateway,), nodes)


class FreeingObserver:
    """An observer that frees every orchestrator at the given number of deferrals."""

    def __init__(self, tester: SimulatedTester, after: int) -> None:
        self.network: Network = tester.network
        self.after = after

    def on_planned(self, _plan: Plan) -> None:
        """Ignore the plan."""

    def on_sent(self, _job: Job, _gateway: str) -> None:
        """Ignore a job that is sent."""

    def on_deferred(self, _job: Job, _gateway: str, _reason: str) -> None:
        """Count the deferral, and free everyone at the last one."""
        self.after -= 1
        if self.after == 0:
            for node in self.network.orchestrators:
                node.restart()

    def on_recorded(self, _result: Result) -> None:
        """Ignore a result."""

    def on_skipped(self, _skip: Skip) -> None:
        """Ignore a skipped job."""


@pytest.mark.parametrize("mode", ["tester", "query"])
async def test_who_becomes_free_passes(mode: str, tmp_path: Path) -> None:
    """Busy at first and free at the second try: passed, with the number of times it was deferred.

    A query gateway does not show at once whether an orchestrator is busy; such a job is repeated when the tick ends.
    """
    async with simulated_tester(network("", "busy", mode=mode), tmp_path) as tester:
        tester.daemon.coordinator.observers = (FreeingObserver(tester, after=2),)
        report = await tester.tick()
        why = "busy" if mode == "tester" else "unclear"
        assert (report.outcomes, report.deferred) == ({"passed": 4}, {why: 2})
        assert sorted(row.deferred for row in await tester.results()) == ([0, 0, 1, 1] if mode == "tester" else [0] * 4)


async def test_one_that_is_always_busy_holds_up_nobody(tmp_path: Path) -> None:
    """With pauses of an hour the tick still ends soon: all tries are made within the patience."""
    limits = {"busy_backoff": "1h", "busy_retries": 3, "busy_patience": "600ms"}
    async with simulated_tester(network("", "busy", ""), tmp_path, limits=limits) as tester:
        async with asyncio.timeout(200):
            report = await tester.tick()
        assert report.state == "finished"
        assert (report.outcomes, report.reasons, report.deferred) == (
            {"passed": 4, "unscored": 2}, {"busy": 2}, {"busy": 6},
        )  # fmt: skip
        busy = [row for row in await tester.results() if row.reason == "busy"]
        assert [row.deferred for row in busy] == [3, 3]
        assert len(tester.network.leaderboard.rows) == 4


@pytest.mark.slow
async def test_busy_at_the_deadline_is_busy_and_not_skipped(tmp_path: Path) -> None:
    """What was asked and had no room has a result, although the tick ended before it could be tried again."""
    sections: dict[str, Any] = {
        "limits": {"busy_backoff": "1h", "busy_patience": "1h"},
        "schedule": {"deadline": "5s"},
    }
    async with simulated_tester(network("busy", ""), tmp_path, **sections) as tester:
        report = await tester.tick()
        assert (report.outcomes, report.reasons) == ({"passed": 2, "unscored": 2}, {"busy": 2})
        assert report.skipped == {}
        assert report.settled == report.planned == len(await tester.results())


async def test_a_streak_of_busy_ticks_is_counted_and_shown(tmp_path: Path) -> None:
    """API, metrics and pages show three ticks in a row without a score, and a pass ends the streak."""
    limits = {"busy_backoff": "1ms", "busy_retries": 1}
    async with simulated_tester(network("busy"), tmp_path, limits=limits) as tester, aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{tester.daemon.port}"
        address = tester.network.scenario.orchestrators[0].address

        async def streaks() -> set[int]:
            async with session.get(f"{base}/api/orchestrators/{address}") as answer:
                return {capability["unscored_streak"] for capability in (await answer.json())["capabilities"]}

        for number in (1, 2, 3):
            await tester.tick()
            assert await streaks() == {number}
        async with session.get(f"{base}/metrics") as answer:
            exported = [line for line in (await answer.text()).splitlines() if line.startswith("jobtester_unscored_t")]
        assert len(exported) == 2
        assert all(f'orchestrator="{address}"' in line and line.endswith(" 3.0") for line in exported)
        async with session.get(f"{base}/") as page, session.get(f"{base}/o/{address}") as other:
            assert "busy · 3 in a row" in await page.text()
            assert "unscored 3 times in a row" in await other.text()
        tester.network.orchestrators[0].restart()
        await tester.tick()
        assert await streaks() == {0}


async def test_busy_external_capabilities_are_unscored(tmp_path: Path) -> None:
    """`No orchestrators found` may mean busy, down or unknown: nobody is failed for it."""
    async with simulated_tester(network("busy", "", byoc=True), tmp_path, limits={"busy_retries": 0}) as tester:
        report = await tester.tick()
        assert report.reasons == {"busy": 2, "capacity_unknown": 1}
        assert report.outcomes["failed"] == 0
