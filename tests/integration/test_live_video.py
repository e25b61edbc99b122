"""Live video through a gateway: every fault has its reason, and every figure is that of the simulator's own log."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest

from jobtester.domain.orchestrators import LIVE_VIDEO, Target
from jobtester.simulator.live_spec import LiveContainerSpec, LiveGatewaySpec
from jobtester.simulator.live_video.live_log import LoggedLiveJob
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from jobtester.store.results import ResultRow
from tests.harness.busy_machine import are_frames_late, repeat_when_frames_are_late, require_frames_on_time
from tests.harness.live_tester import FPS, find_live_job, live_tester, misattributed_streams
from tests.harness.simulated import SimulatedTester
from tests.harness.waiting import until

FIRST_FRAME_ERROR_S = 0.02
WORST_FIRST_FRAME_ERROR_S = 0.15  # of a single stream, on a machine that is busy with other tests
FAULTS = {
    "": ("ok", "passed"),
    "live_black": ("check:black", "failed"),
    "live_claims_params": ("check:unchanged", "failed"),
    "live_container_dies": ("stream_ended", "failed"),
    "live_degraded_inference": ("ok", "passed"),
    "live_degraded_input": ("ok", "passed"),
    "live_empty_segments": ("no_frames", "failed"),
    "live_error": ("stream_error", "failed"),
    "live_frozen": ("check:frozen", "failed"),
    "live_ignores_params": ("check:reaction", "failed"),
    "live_mute": ("unproven", "unscored"),
    "live_never_loads": ("stream_error", "failed"),
    "live_no_events": ("unproven", "unscored"),
    "live_orchestrator_dies": ("stream_ended", "failed"),
    "live_slow": ("check:frame_rate", "failed"),
    "live_start_500": ("not_started", "unscored"),
    "live_start_503": ("not_started", "unscored"),
    "live_swap": ("stream_error", "failed"),
    "down": ("not_started", "unscored"),
}

MAX_ATTEMPTS = 5
# Models of their own where the change of parameters has to show, or the gateway to end the stream, which takes longer.
MODELS = {"live_ignores_params": "longer", "live_claims_params": "changing", "live_container_dies": "longer"}
RULES = {
    "longer": {"video": {"duration": "8s"}},
    "changing": {"video": {"duration": "8s", "passes_through": False}},
}


def node(number: int, fault: str = "", *, model: str = "streamdiffusion-sdxl", **live: float) -> OrchestratorSpec:
    """Return an orchestrator with one live model, ten times as fast as a real one."""
    spec = LiveContainerSpec(**{"fault_after_s": 30.0, **live}).scale_times(0.1)
    return OrchestratorSpec(
        f"0x{number:040x}",
        service_uri="https://127.0.0.1:0",
        models=(ModelSpec(LIVE_VIDEO, model),),
        fault=fault,
        live=spec,
    )


def network(*nodes: OrchestratorSpec, mode: str = "query", gateways: int = 1) -> Scenario:
    """Return a network with gateways that are ten times as fast as real ones."""
    live = LiveGatewaySpec().scale_times(0.1)
    if mode == "tester":  # its sessions end at once (-aiSessionTimeout=0), so that its pool follows the webhook
        live = dataclasses.replace(live, pool_refresh_s=0.001)
    specs = tuple(
        GatewaySpec(f"g{number}", mode=mode, retry_window=5.0, live=live)  # type: ignore[arg-type]
        for number in range(gateways)
    )
    return Scenario("live", 3, specs, nodes)


async def test_each_fault_has_its_reason_and_the_figures_are_those_of_the_log(tmp_path: Path) -> None:
    """The whole fault table; nobody is scored for a stream that somebody else served, or nobody.

    On a machine that is busy with other tests the tester's own frames may be late, which it has to say. Such jobs run
    again in a new network: in the old one their orchestrators may have left the gateway's pool.
    """
    faults, outcomes, errors = list(FAULTS), {}, []
    for attempt in range(MAX_ATTEMPTS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        nodes = [node(number, fault, model=MODELS.get(fault, "passing")) for number, fault in enumerate(faults, 1)]
        async with live_tester(network(*nodes), folder, per_model=RULES) as tester:
            report = await tester.tick()
            results = await tester.results()
            assert (report.planned, sum(report.skipped.values())) == (len(faults), 0)
            assert misattributed_streams(tester.network, results) == []
            for row in results:
                outcomes[faults[int(row.orchestrator, 16) - 1]] = (row.reason, row.outcome)
                if row.outcome != "unscored":
                    errors += assert_figures_of_log(find_live_job(tester.network, row), row)
            faults = [faults[int(row.orchestrator, 16) - 1] for row in filter(are_frames_late, results)]
        if not faults:
            break
    assert outcomes == FAULTS
    assert min(errors) < FIRST_FRAME_ERROR_S  # a busy machine delays some; a wrong clock shows in all of them


def assert_figures_of_log(job: LoggedLiveJob, row: ResultRow) -> list[float]:
    """Compare what the tester measured with what the simulator knows; return the first frame's error, if it came."""
    assert row.attribution == "proven"
    outputs = [output for output in job.outputs if output.frames]
    shown = sum(output.frames for output in outputs if output.url.endswith(f"/out/{job.stream_id}"))
    # What comes after the watch is over, or is broken off with the connection, is not counted.
    assert 0 <= shown - row.measures["frames"] <= 2 * FPS, row
    assert row.round_trip_s > 0
    assert row.measures["input_fps"] == pytest.approx(FPS, rel=0.1)
    if not row.measures["frames"]:
        return []
    first_at = min(output.first_frame_at for output in outputs if output.first_frame_at is not None)
    error_s = abs(row.measures["first_frame_s"] - (first_at - job.received_at))
    assert error_s < WORST_FIRST_FRAME_ERROR_S, row
    assert row.round_trip_s == pytest.approx(row.measures["first_frame_s"], abs=1e-3)
    return [error_s]


async def test_a_webhook_gateway_is_told_by_the_lease_too(tmp_path: Path) -> None:
    """Streams are named by the lease and by the pin, and served by their own orchestrators."""
    gateway = {"streams": 1, "retry_window": "300ms", "settle": "100ms"}
    async with live_tester(network(node(1), node(2), mode="tester"), tmp_path, gateways=[gateway]) as tester:
        assert tester.daemon.coordinator.gateways[0].targeting.kind == "webhook"
        await tester.tick()
        results = await tester.results()
        assert [row.attribution for row in results] == ["proven", "proven"]
        assert misattributed_streams(tester.network, results) == []
        assert {row.targeting for row in results} == {"webhook"}


@repeat_when_frames_are_late
async def test_a_stream_within_the_refresh_is_out_of_the_pool_and_counts_for_nobody(tmp_path: Path) -> None:
    """The gateway leaves out whom a stream failed to; such a stream does not make that last longer."""
    refresh = {"pool_refresh": "1h"}
    nodes = (node(1, "live_orchestrator_dies"), node(2))
    async with live_tester(network(*nodes), tmp_path, live_video=refresh) as tester:
        live_video = tester.daemon.coordinator.planner.inputs.live_video
        assert live_video is not None
        reasons, ages = [], []
        for _ in range(3):
            tick = (await tester.tick()).tick
            (row,) = [row for row in await tester.results(tick) if row.orchestrator.endswith("1")]
            require_frames_on_time(row)
            reasons.append((row.reason, row.outcome))
            ages.append(live_video.seconds_since_failure("g0", Target(row.orchestrator, row.service_uri)))
        assert reasons[0][0] == "stream_ended"
        assert reasons[1:] == [("out_of_pool", "unscored")] * 2
        assert None not in ages
        assert sorted(ages) == ages, "the failure was renewed"  # type: ignore[type-var]


async def test_too_many_candidates_are_named_as_the_reason(tmp_path: Path) -> None:
    """Of a model that more than 20 orchestrators offer, the gateway may never try the one that is named."""
    nodes = [node(number) for number in range(1, 25)]
    async with live_tester(network(*nodes), tmp_path, discovery={"patience": "2s", "include": []}) as tester:
        inputs = tester.daemon.coordinator.planner.inputs
        assert inputs.live_video is not None
        # Only streams that reach nobody end at once; the rest is not what this test is about.
        running = asyncio.ensure_future(tester.tick())
        rows = await until(
            lambda: _of_reason(tester, "too_many_candidates"), "a job that reached nobody", timeout_s=100
        )
        tester.daemon.stop()
        await running
        assert {row.outcome for row in rows} == {"unscored"}
        assert find_live_job(tester.network, rows[0]).tries == 20
        assert "24 orchestrators offer the model" in rows[0].message


async def _of_reason(tester: SimulatedTester, reason: str) -> list[ResultRow]:
    return [row for row in await tester.results() if row.reason == reason]


@pytest.mark.slow
async def test_live_jobs_do_not_wait_for_a_gateway_that_is_gone(tmp_path: Path) -> None:
    """Another gateway that takes no streams goes on; the live jobs are skipped with the reason."""
    batch = OrchestratorSpec(
        f"0x{9:040x}", service_uri="https://node.example:8935", models=(ModelSpec("llm", "m", latency_s=(0.1, 0.1)),)
    )
    gateways = [{"streams": 1}, {"streams": 0}]
    scenario = network(node(1), node(2), node(3), batch, gateways=2)
    async with live_tester(scenario, tmp_path, gateways=gateways) as tester:
        running = asyncio.ensure_future(tester.tick())
        await until(lambda: tester.network.live_log.jobs, "the first stream")
        await tester.network.gateways["g0"].stop()
        report = await asyncio.wait_for(running, 100)
        assert report.skipped["gateway_lost"] == 2
        results = {row.orchestrator[-1]: row.reason for row in await tester.results()}
        results.pop("9")  # it went through whichever gateway was free
        assert list(results.values()) == ["gateway_lost"]


async def test_a_gateway_that_restarted_is_charged_to_nobody(tmp_path: Path) -> None:
    """It answers again within a moment, and has forgotten the stream."""
    async with live_tester(network(node(1)), tmp_path) as tester:
        gateway = tester.network.gateways["g0"]
        running = asyncio.ensure_future(tester.tick())
        job = await until(lambda: next(iter(tester.network.live_log.jobs), None), "the stream")
        await until(lambda: any(output.frames > FPS for output in job.outputs), "a second of output")
        await gateway.stop()
        await gateway.start()
        await running
        (row,) = await tester.results()
        assert (row.reason, row.outcome) == ("gateway_lost", "unscored")


async def test_a_gateway_that_restarts_before_it_names_anybody_is_lost(tmp_path: Path) -> None:
    """Its first status names nobody, and the next answer is that there is no such stream."""
    async with live_tester(network(node(1, event_interval_s=1000.0)), tmp_path) as tester:
        gateway = tester.network.gateways["g0"]
        running = asyncio.ensure_future(tester.tick())
        job = await until(lambda: next(iter(tester.network.live_log.jobs), None), "the stream")
        await until(lambda: any(output.frames > FPS for output in job.outputs), "a second of output")
        await gateway.stop()
        await gateway.start()
        await running
        (row,) = await tester.results()
        assert row.attribution == "missing"
        assert (row.reason, row.outcome) == ("gateway_lost", "unscored")


@repeat_when_frames_are_late
async def test_a_change_of_parameters_is_applied_and_reported(tmp_path: Path) -> None:
    """The runner reports the hash of what was sent."""
    rules = {"passing": {"video": {"duration": "8s"}}}
    async with live_tester(network(node(1, event_interval_s=5.0)), tmp_path, per_model=rules) as tester:
        await tester.tick()
        (row,) = await tester.results()
        require_frames_on_time(row)
        assert row.reason == "ok"
        assert 0 < row.measures["params_applied_s"] < 8


async def test_the_stat_of_a_stream_is_as_the_leaderboard_wants_it(tmp_path: Path) -> None:
    """The round trip is that of the first frame, also above 0 without one; request and response are JSON strings."""
    nodes = (node(1), node(2, "live_empty_segments"))
    async with live_tester(network(*nodes), tmp_path) as tester:
        await tester.tick()
        results = {row.orchestrator: row for row in await tester.results()}
        stats = [row.stat for row in tester.network.leaderboard.rows]
        scored = [row for row in results.values() if row.outcome != "unscored"]
        assert len(stats) == len(scored)
        for stat in stats:
            row = results[stat["orchestrator"]]
            assert (stat["pipeline"], stat["model"]) == ("Live video to video", row.model)
            assert stat["success_rate"] == (1 if row.outcome == "passed" else 0)
            assert stat["round_trip_time"] == pytest.approx(row.round_trip_s)
            assert stat["round_trip_time"] > 0
            assert json.loads(stat["input_parameters"])["prompt"]
            response = json.loads(stat["response_payload"])
            assert response["frames"] == row.measures["frames"]
