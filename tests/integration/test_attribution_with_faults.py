"""Every scored result is about the orchestrator that really served the job, in each way of targeting, with faults."""

from __future__ import annotations

import pytest

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec, Scenario
from tests.harness.simulated import misattributed_results, simulated_tester

SLUGS = ("text-to-image", "llm", "image-to-text", "text-to-speech", "audio-to-text")


def network(mode: str, *, orchestrators: int = 24, seed: int = 11, **gateway: object) -> Scenario:
    """Build a network with fifteen jobs at each orchestrator; a third of the orchestrators misbehave."""
    return generate(
        seed=seed,
        orchestrators=orchestrators,
        models_per_pipeline=3,
        pipelines=SLUGS,
        latency_s=(0.0, 0.02),
        info_s=(0.0, 0.002),
        fault_share=0.35,
        gateways=(GatewaySpec(name="gateway", mode=mode, retry_window=0.1, **gateway),),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("mode", "orchestrators"), [("tester", 24), pytest.param("query", 16, marks=pytest.mark.slow)])
async def test_hundreds_of_jobs_are_credited_to_who_served_them(  # type: ignore[no-untyped-def]
    mode: str, orchestrators: int, tmp_path
) -> None:
    """Fifteen jobs at each of many orchestrators with faults: no scored result disagrees with the simulator's log."""
    async with simulated_tester(network(mode, orchestrators=orchestrators), tmp_path) as tester:
        report = await tester.tick()
        results = await tester.results()
        assert report.state == "finished"
        assert report.settled == report.planned == len(results) == 15 * orchestrators
        assert not misattributed_results(results, tester.network)
        scored = [row for row in results if row.outcome != "unscored"]
        assert len(scored) >= 10 * orchestrators
        assert {row.outcome for row in results} >= {"passed", "failed"}
        stored = sorted(
            (r.stat["orchestrator"], r.stat["model"], r.stat["round_trip_time"])
            for r in tester.network.leaderboard.rows
        )
        assert stored == sorted((row.orchestrator, row.model, row.round_trip_s) for row in scored)


async def test_a_stock_gateway_is_noticed_and_nothing_false_is_posted(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """It remembers whom it used and does not ask; what it serves belongs to nobody, and the rest is not sent."""
    async with simulated_tester(network("stock", orchestrators=6), tmp_path) as tester:
        for _ in range(2):
            report = await tester.tick()
            results = await tester.results(report.tick)
            assert not misattributed_results(results, tester.network)
            assert report.skipped["not_targeted"] > 0
            assert "not_targeted" in {row.reason for row in results}
        ready = await tester.daemon.health.check_readiness()
        assert not ready["gateway"]["ok"]
        posted = {row.stat["orchestrator"] for row in tester.network.leaderboard.rows}
        assert len(posted) <= 2
