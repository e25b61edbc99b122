"""Jobs of video apps: a reason for each fault, figures as in the simulator's log, payment, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from jobtester.store.results import ResultRow
from jobtester.store.runner_sessions import RunnerSessions
from tests.harness.busy_machine import are_frames_late, repeat_when_frames_are_late, require_frames_on_time
from tests.harness.metrics import without_region
from tests.harness.runner_video import FPS, video_node, video_tester
from tests.harness.simulated import SimulatedTester
from tests.harness.waiting import until

FAULTS = {
    "": ("ok", "passed"),
    "video_black": ("check:black", "failed"),
    "video_frozen": ("check:frozen", "failed"),
    "video_slow": ("check:frame_rate", "failed"),
    "video_mute": ("no_frames", "failed"),
    "video_empty_segments": ("no_frames", "failed"),
    "video_dies": ("check:gap", "failed"),
    "video_ends_early": ("stream_ended", "failed"),
    "video_session_lost": ("stream_ended", "failed"),
    "video_other_host": ("refuted", "unscored"),
    "runner_wrong": ("ok", "passed"),  # spoils answers of other apps
    "runner_fails": ("app_error", "failed"),
    "runner_down": ("app_down", "failed"),
    "session_lost": ("app_gone", "failed"),
    "session_conflict": ("session_conflict", "failed"),
}
# How a stream, or the call of its app, ends with its session or its orchestrator.
BREAKS = {"stream_ended", "no_frames", "app_gone", "app_cut_short", "unreachable", "check:gap"}
STREAM_TASKS = {"video to a live runner", "video of a live runner", "payment", "first frame"}
MAX_ATTEMPTS = 4
FIRST_FRAME_ERROR_S = 0.02
WORST_FIRST_FRAME_ERROR_S = 0.15  # of a single stream, on a machine that is busy with other tests


@pytest.mark.timeout(300)
async def test_each_fault_has_its_reason_and_the_figures_are_those_of_the_log(tmp_path: Path) -> None:
    """One orchestrator for each fault: its outcome and reason, the first frame's time, and the rate of the input.

    A busy machine delays the tester's own frames, which the result says; those jobs run once more, in a tick of theirs.
    """
    outcomes: dict[str, tuple[str, str]] = {}
    errors: list[float] = []
    faults = list(FAULTS)
    for attempt in range(MAX_ATTEMPTS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        nodes = [video_node(number, fault) for number, fault in enumerate(faults, 1)]
        async with video_tester(*nodes, folder=folder) as tester:
            await tester.tick()
            results = await tester.results()
            assert len(results) == len(faults)
            for row in results:
                place = int(row.orchestrator, 16) - 1
                outcomes[faults[place]] = (row.reason, row.outcome)
                if "frames" in row.measures and not are_frames_late(row):
                    errors += assert_figures_of_log(tester, place, row)
            await assert_nothing_left(tester)
            faults = [faults[int(row.orchestrator, 16) - 1] for row in filter(are_frames_late, results)]
        if not faults:
            break
    assert outcomes == FAULTS
    assert min(errors) < FIRST_FRAME_ERROR_S  # a busy machine delays some; a wrong clock shows in all of them


def assert_figures_of_log(tester: SimulatedTester, place: int, row: ResultRow) -> list[float]:
    """Assert that the round trip counts from the app's call to the first frame; return how wrong it was, if it came."""
    (stream,) = tester.network.service_ports[place].video_streams
    (call,) = [
        request
        for request in tester.network.runner_requests
        if request.kind == "call" and request.session_id == stream.session_id
    ]
    assert row.attribution == "proven"
    assert row.measures["input_fps"] == pytest.approx(FPS, rel=0.1)
    if not row.measures["frames"]:
        assert stream.first_output_at is None
        assert "first_frame_s" not in row.measures
        assert row.round_trip_s == pytest.approx(4.0, abs=0.5)
        return []
    assert stream.first_output_at is not None
    error_s = abs(row.measures["first_frame_s"] - (stream.first_output_at - call.received_at))
    assert error_s < WORST_FIRST_FRAME_ERROR_S, row
    assert row.round_trip_s == pytest.approx(row.measures["first_frame_s"], abs=1e-3)
    assert row.measures["session_seconds"] <= row.measures["ready_seconds"]
    return [error_s]


async def assert_nothing_left(tester: SimulatedTester) -> None:
    """Assert that every session is over, at the orchestrators and in the journal, and every channel and task too."""
    for port in tester.network.service_ports:
        for runner in port.runners:
            assert not runner.sessions
            assert not runner.in_flight
    assert await RunnerSessions(tester.daemon.database).open_sessions() == []
    assert not {task.get_name() for task in asyncio.all_tasks()} & STREAM_TASKS


async def test_the_result_is_what_the_frames_say(tmp_path: Path) -> None:
    """The app's own name goes to the Leaderboard, with the first frame's time and the measures as the answer."""
    async with video_tester(video_node(1), video_node(2, "video_mute"), folder=tmp_path) as tester:
        await tester.tick()
        results = {row.orchestrator: row for row in await tester.results()}
        for stat in (stored.stat for stored in tester.network.leaderboard.rows):
            row = results[stat["orchestrator"]]
            assert (stat["pipeline"], stat["model"]) == ("x/echo", "1")
            assert stat["success_rate"] == (row.outcome == "passed")
            assert stat["round_trip_time"] == pytest.approx(row.round_trip_s)
        assert len(tester.network.leaderboard.rows) == sum(row.outcome != "unscored" for row in results.values())
        for row in results.values():
            answer = json.loads(row.response)
            assert (answer["way"], answer["frames"]) == ("trickle in, trickle out", row.measures["frames"])
            assert row.targeting == "direct"
        shown = without_region(generate_latest(tester.daemon.coordinator.metrics.registry).decode())
        for row in results.values():
            labels = f'app="x/echo",model="1",orchestrator="{row.orchestrator}",pipeline="runner-video-echo"'
            has_frames = row.outcome != "unscored" and "first_frame_s" in row.measures
            assert (f"jobtester_live_first_frame_seconds{{{labels}}}" in shown) == has_frames


async def test_a_stream_that_is_aborted_is_shutdown_and_its_session_is_stopped(tmp_path: Path) -> None:
    """The tester stops in the middle of a stream: nobody is scored, and the slot is free again."""
    async with video_tester(video_node(1), folder=tmp_path, video={"duration": "60s"}) as tester:
        ticking = asyncio.create_task(tester.tick())
        port = tester.network.service_ports[0]
        await until(lambda: port.video_streams and port.video_streams[0].first_output_at, "frames come back")
        tester.daemon.coordinator.stop()
        tester.daemon.coordinator.abort()
        await asyncio.wait_for(ticking, 15)
        (row,) = await tester.results()
        assert (row.reason, row.outcome) == ("shutdown", "unscored")
        assert port.runners[0].session_counts["stopped"] == 1
        await assert_nothing_left(tester)


@repeat_when_frames_are_late
async def test_a_stream_is_paid_by_the_second_until_it_ends(tmp_path: Path) -> None:
    """Payments go on while the stream runs, the orchestrator never ends it, and the result has what was paid."""
    node = video_node(1, price=1000, unit="seconds")
    async with video_tester(node, folder=tmp_path, video={"duration": "5s"}) as tester:
        await tester.tick()
        (row,) = await tester.results()
        paid = [request for request in tester.network.runner_requests if request.paid_wei]
        assert [request.kind for request in paid][:2] == ["reserve", "payment"]
        assert tester.network.service_ports[0].runners[0].session_counts["lapsed"] == 0
        require_frames_on_time(row)
        assert row.reason == "ok"
        assert row.estimated_price_wei is not None
        assert 12_000 <= row.estimated_price_wei <= 20_000  # 10 seconds ahead, and from the first payment to the last
        (stop,) = [request for request in tester.network.runner_requests if request.kind == "stop"]
        assert max(request.received_at for request in paid) < stop.sent_at
        await assert_nothing_left(tester)


async def test_one_stream_at_a_time_at_an_orchestrator(tmp_path: Path) -> None:
    """Two apps of one orchestrator do not run side by side; those of others do, up to live_runner.streams."""
    two = video_node(1)
    two = replace(two, runners=(*two.runners, *video_node(1, app="y/echo").runners))
    nodes = (two, video_node(2))
    async with video_tester(*nodes, folder=tmp_path, live_runner={"streams": 2}, video={"duration": "3s"}) as tester:
        await tester.tick()
        assert len(await tester.results()) == 3
        spans = sorted(
            (request.received_at, request.kind)
            for request in tester.network.runner_requests
            if request.kind in ("reserve", "stop") and request.address == two.address
        )
        assert [kind for _, kind in spans] == ["reserve", "stop", "reserve", "stop"]


async def test_a_session_that_is_too_short_for_the_stream_is_the_testers_fault(tmp_path: Path) -> None:
    """live_runner.max_session ends the stream, and the configuration says so before."""
    short = {"max_session": "2s"}
    async with video_tester(video_node(1), folder=tmp_path, live_runner=short, video={"duration": "30s"}) as tester:
        await tester.tick()
        (row,) = await tester.results()
        assert (row.reason, row.outcome) == ("tester_fault", "unscored")
        assert "live_runner.max_session" in row.message
        await assert_nothing_left(tester)


@pytest.mark.slow
@pytest.mark.timeout(240)
@repeat_when_frames_are_late
async def test_breaks_at_random_moments_are_charged_to_the_right_side(tmp_path: Path) -> None:
    """Sessions are lost, and orchestrators go down or restart: the stream shows it, and nothing is left of it."""
    moments = random.Random(23)
    nodes = [video_node(number) for number in range(1, 13)]
    async with video_tester(*nodes, folder=tmp_path, live_runner={"streams": 3}, video={"duration": "3s"}) as tester:
        running = asyncio.create_task(tester.tick())
        ports = tester.network.service_ports
        broken: dict[str, str] = {}

        async def break_off(place: int, way: str) -> None:
            port = ports[place]
            await until(lambda: running.done() or port.runners[0].sessions, "its session is reserved", timeout_s=100)
            await asyncio.wait([running], timeout=moments.uniform(0, 2))
            broken[port.node.spec.address] = way
            match way:
                case "lose":
                    port.runners[0].set_healthy(False)
                case "down" | "restart":
                    port.node.restart(down=way == "down")

        ways = ("nothing", "lose", "down", "restart") * 3
        await asyncio.gather(*(break_off(place, way) for place, way in enumerate(ways)), running)
        rows = await tester.results()
        assert len(rows) == len(nodes)
        for row in rows:
            require_frames_on_time(row)
            if broken[row.orchestrator] == "nothing":
                assert row.reason == "ok", row.message
            else:
                assert row.reason in BREAKS, row.message
                assert row.outcome == "failed"
        assert not {task.get_name() for task in asyncio.all_tasks()} & STREAM_TASKS
        assert not [runner for port in ports for runner in port.runners if runner.sessions]
