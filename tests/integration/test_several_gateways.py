"""Several gateways: one dies in the middle of a tick, the others take over, and it comes back by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jobtester.gateway.targeting import WebhookTargeting
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec, Scenario
from tests.harness.simulated import SimulatedTester, misattributed_results, simulated_tester
from tests.harness.waiting import until


def network(*modes: str) -> Scenario:
    """Build twelve orchestrators behind gateways of these modes."""
    return generate(
        seed=8,
        orchestrators=12,
        models_per_pipeline=2,
        pipelines=("llm", "text-to-image", "image-to-text"),
        latency_s=(0.1, 0.4),
        gateways=tuple(GatewaySpec(f"g{at}", mode=mode, retry_window=0.1) for at, mode in enumerate(modes)),  # type: ignore[arg-type]
    )


async def lose_gateway_mid_tick(tester: SimulatedTester, *, back: bool) -> None:
    """Run a tick in which g0 goes away while it works."""
    network = tester.network
    running = asyncio.ensure_future(tester.tick())
    await until(lambda: sum(job.gateway == "g0" for job in network.logged_jobs) >= 3)
    gateway = next(item for item in tester.daemon.coordinator.gateways if item.name == "g0")
    assert isinstance(gateway.targeting, WebhookTargeting)
    leased_jobs = gateway.targeting.lease.jobs
    await until(lambda: any(0 < job.questions <= 5 for job in leased_jobs.values()))  # it is there, and not answered
    await network.gateways["g0"].stop()
    await until(lambda: gateway.is_down)
    before = len(network.logged_jobs)
    if back:
        await asyncio.sleep(0.3)
        await network.gateways["g0"].start()
    report = await running
    results = await tester.results()
    assert report.settled == report.planned == len(results) == 72
    assert misattributed_results(results, network) == []
    lost = [row for row in results if row.reason == "gateway_lost"]
    assert lost, "a job was in flight when the gateway went"
    assert all(row.outcome == "unscored" and row.gateway == "g0" for row in lost)
    assert len(lost) <= 12
    others = [(row.reason, row.gateway, row.message, row.evidence) for row in results if row not in lost]
    assert {other for other in others if other[0] != "ok"} == set()
    assert len(network.leaderboard.rows) == len(results) - len(lost)
    after = {job.gateway for job in network.logged_jobs[before:]}
    assert "g2" in after
    assert ("g0" in after) == back
    assert {job.gateway for job in network.logged_jobs} == {"g0", "g1", "g2"}


async def test_the_others_take_over(tmp_path: Path) -> None:
    """What was in flight is unscored, what had not begun goes through the others."""
    async with simulated_tester(network("tester", "tester", "query"), tmp_path) as tester:
        await lose_gateway_mid_tick(tester, back=False)


async def test_a_gateway_comes_back_by_itself(tmp_path: Path) -> None:
    """A gateway that answers again gets jobs again, in the same tick."""
    async with simulated_tester(network("tester", "tester", "query"), tmp_path, limits={"jobs": 8}) as tester:
        await lose_gateway_mid_tick(tester, back=True)


@pytest.mark.slow
async def test_with_no_gateway_left_the_rest_is_skipped(tmp_path: Path) -> None:
    """A tick whose only gateway dies ends, with every job accounted for, and the next one is whole again."""
    async with simulated_tester(network("tester"), tmp_path) as tester:
        stage_network = tester.network
        running = asyncio.ensure_future(tester.tick())
        await until(lambda: len(stage_network.logged_jobs) >= 3)
        await stage_network.gateways["g0"].stop()
        await until(lambda: tester.daemon.coordinator.gateways[0].is_down)
        tester.daemon.coordinator.stop("gateway_lost")
        report = await running
        assert report.settled + sum(report.skipped.values()) == report.planned == 72
        assert report.skipped["gateway_lost"] > 0
        assert {row.outcome for row in await tester.results()} <= {"passed", "unscored"}
        await stage_network.gateways["g0"].start()
        again = await tester.tick()
        assert again.outcomes["passed"] == 72
