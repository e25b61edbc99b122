"""Thousands of jobs in every way of targeting: no scored result disagrees with the simulator's log of who served what.

And the test can fail: leases that hand over at once, or overlap without proof, are caught by the same comparison.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobtester.domain.orchestrators import Orchestrator
from jobtester.gateway.lease import Lease, LeasedJob
from jobtester.gateway.targeting import WebhookTargeting
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import ByocSpec, GatewaySpec, Scenario
from tests.harness.simulated import BATCH_PIPELINES, SimulatedTester, misattributed_results, simulated_tester

pytestmark = pytest.mark.slow

# By default a seventh of the jobs, so that the whole suite stays quick: STRESS=1 runs them all.
SHARE = 1.0 if os.environ.get("STRESS") else 0.15
QUICK = ("llm", "text-to-image", "image-to-text", "text-to-speech", "audio-to-text")
TIMES = {"retry_window": "100ms", "settle": "30ms", "after_disconnect": "300ms", "first_ask": "30s"}


def network(
    *modes: str, seed: int, orchestrators: int = 60, models: int, info_s: tuple[float, float] = (0.0, 0.002),
    latency_s: tuple[float, float] = (0.0, 0.03), faults: float = 0.25, byoc: bool = False,
) -> Scenario:  # fmt: skip
    """Build a network whose gateways keep the tester's short times."""
    made = generate(
        seed=seed,
        orchestrators=max(6, int(orchestrators * SHARE)),
        models_per_pipeline=models,
        pipelines=QUICK,
        latency_s=latency_s,
        info_s=info_s,
        fault_share=faults,
        gateways=tuple(
            GatewaySpec(name=f"g{number}", mode=mode, retry_window=0.1, info_timeout=0.6, events=mode == "tester")  # type: ignore[arg-type]
            for number, mode in enumerate(modes)
        ),
    )
    if byoc:
        external = tuple(
            ByocSpec(name, model, latency_s=latency_s)
            for name, model in (("openai-chat-completions", "m"), ("openai-text-embeddings", "e"))
        )
        made = replace(made, orchestrators=tuple(replace(spec, byoc=external) for spec in made.orchestrators))
    return made


def shared_sections(**more: Any) -> dict[str, Any]:
    """Return the sections that all runs share."""
    return {
        "pipelines": {slug: {"timeout": "60s", "cold_timeout": "60s"} for slug in BATCH_PIPELINES},
        "limits": {"jobs": 64, "busy_backoff": "20ms", "busy_retries": 1, "grace": "1s", **more},
    }


async def assert_proven(tester: SimulatedTester, at_least: int) -> None:
    """Run a tick and hold every result against the log."""
    report = await tester.tick()
    results = await tester.results()
    assert report.settled == report.planned == len(results) >= int(at_least * SHARE)
    assert misattributed_results(results, tester.network) == []
    scored = [row for row in results if row.outcome != "unscored"]
    assert len(scored) >= 0.6 * len(results)
    assert len(tester.network.leaderboard.rows) == len(scored)


@pytest.mark.timeout(300)
async def test_exclusive(tmp_path: Path) -> None:
    """One webhook gateway, four jobs at a time on the one orchestrator that is named."""
    scenario = network("tester", seed=1, models=3)
    async with simulated_tester(scenario, tmp_path, gateways=[TIMES], **shared_sections(per_orchestrator=4)) as tester:
        await assert_proven(tester, 900)


@pytest.mark.timeout(300)
async def test_overlap_among_slow_info_calls(tmp_path: Path) -> None:
    """One webhook gateway whose lease moves on while jobs compute, with info calls that hold the list."""
    scenario = network("tester", seed=2, models=3, orchestrators=30, info_s=(0.005, 0.06), latency_s=(0.05, 0.3))
    async with simulated_tester(
        scenario, tmp_path, gateways=[{**TIMES, "overlap": True}], **shared_sections()
    ) as tester:
        await assert_proven(tester, 450)


@pytest.mark.timeout(300)
async def test_query(tmp_path: Path) -> None:
    """Everything in parallel through a gateway that takes the orchestrator from each request."""
    scenario = network("query", seed=3, models=8)
    async with simulated_tester(scenario, tmp_path, gateways=[TIMES], **shared_sections(per_orchestrator=2)) as tester:
        await assert_proven(tester, 2400)


@pytest.mark.timeout(300)
async def test_mixed_gateways_and_byoc(tmp_path: Path) -> None:
    """Three webhook gateways and a query gateway share the orchestrators; external capabilities run on all of them."""
    scenario = network("tester", "tester", "tester", "query", seed=4, models=4, byoc=True)
    async with simulated_tester(
        scenario, tmp_path, gateways=[TIMES] * 4, **shared_sections(per_orchestrator=2)
    ) as tester:
        await assert_proven(tester, 1300)


class HandsOverAtOnce(Lease):
    """A lease as a careless tester would have it: it moves whenever the next job is ready."""

    def ready_at(self, _orchestrator: Orchestrator, now: float) -> float | None:
        """Never wait for anything."""
        return now

    def on_sent(self, job: str, now: float) -> LeasedJob:
        """Take every job for one that runs alone."""
        return replace(super().on_sent(job, now), was_overlapped=False)

    def on_ended(self, job: str, now: float, *, disconnected: bool) -> LeasedJob:
        """Forget that others were named meanwhile."""
        leased = super().on_ended(job, now, disconnected=disconnected)
        leased.was_overlapped = False
        return leased

    def claim_questions(self, _leased: LeasedJob) -> bool:
        """Believe whatever was answered."""
        return True


class OverlapsWithoutProof(Lease):
    """A lease that moves on once the gateway has asked, and takes that for the truth."""

    def ready_at(self, _orchestrator: Orchestrator, now: float) -> float | None:
        """Wait for one call per job, which need not be the job's own, nor its last."""
        return now if all(leased.questions for leased in self.jobs.values()) else None

    def on_ended(self, job: str, now: float, *, disconnected: bool) -> LeasedJob:
        """Forget that others were named meanwhile."""
        leased = super().on_ended(job, now, disconnected=disconnected)
        leased.was_overlapped = False
        return leased


@pytest.mark.timeout(300)
@pytest.mark.parametrize("broken", [HandsOverAtOnce, OverlapsWithoutProof])
async def test_broken_leases_are_caught(broken: type[Lease], tmp_path: Path) -> None:
    """The same test fails with a lease that lacks our rules: by false credit, or since the gateway is distrusted."""
    scenario = network(
        "tester", seed=5, models=2, orchestrators=12, info_s=(0.02, 0.2), latency_s=(0.05, 0.3), faults=0.7
    )
    gateway = {**TIMES, "overlap": True, "retry_window": "20ms", "settle": "5ms", "first_ask": "3s"}
    async with simulated_tester(scenario, tmp_path, gateways=[gateway], **shared_sections()) as tester:
        targeting = tester.daemon.coordinator.gateways[0].targeting
        assert isinstance(targeting, WebhookTargeting)
        targeting.lease = broken(targeting.lease.timing, overlap=True)
        with pytest.raises(AssertionError):
            await assert_proven(tester, 120)
