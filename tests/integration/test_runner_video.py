"""Streams through the video apps of live runners: what is recorded of each, for every fault."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

import orjson
import pytest

from jobtester.live_runner.video_stream import (
    RunnerStream,
    RunnerStreamPlan,
    RunnerStreamRecording,
    UnusableChannelsError,
    VideoChannels,
)
from jobtester.video.pattern import VideoFormat
from tests.harness.video_apps import video_session
from tests.harness.waiting import until

FORM = VideoFormat(192, 192, 24)
PLAN = RunnerStreamPlan(FORM, start_limit_s=3.0, duration_s=4.0)
URI = "https://node.example:8935"
BASE = f"{URI}/ai/trickle"


async def _run(fault: str = "") -> RunnerStreamRecording:
    async with video_session(fault=fault) as (network, client, urls, _):
        channels = VideoChannels.from_answer(orjson.dumps(urls), network.orchestrators[0].spec.service_uri)
        return await asyncio.wait_for(RunnerStream(PLAN, channels, client.open_request).run(), 30)


def _count_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_stream_that_passes() -> None:
    """Every frame comes back; both channels end because the tester ends its input."""
    recording = await _run()
    assert [frame.mark for frame in recording.decoded.frames] == sorted(recording.sent.times)
    assert recording.written is not None
    assert recording.output.end is not None
    assert (recording.written.code, recording.output.end.code) == ("finished", "closed")
    assert (recording.ended_early_at, recording.output.gaps, recording.dropped_segments) == (None, (), ())
    assert recording.first_frame_at is not None
    watched_s = recording.watched_until - recording.first_frame_at
    assert PLAN.duration_s <= watched_s < PLAN.duration_s + 0.5
    assert recording.input_problem == ""


@pytest.mark.parametrize("fault", ["video_mute", "video_empty_segments"])
async def test_a_stream_without_output(fault: str) -> None:
    """It is watched for the time in which the first frame is due; segments without a byte are counted."""
    recording = await _run(fault)
    assert recording.first_frame_at is None
    assert recording.ended_early_at is None
    assert PLAN.start_limit_s <= recording.watched_until - recording.started < PLAN.start_limit_s + 0.5
    assert (recording.output.empty_segments >= 2) == (fault == "video_empty_segments")


async def test_a_stream_that_stalls() -> None:
    """An app that dies closes no channel: the frames stop, and the tester watches to the end of its time."""
    recording = await _run("video_dies")
    assert recording.decoded.frames[-1].arrived < recording.watched_until - 1.0
    assert recording.ended_early_at is None
    assert recording.output.end is None or recording.output.end.code == "limit"


async def test_a_stream_that_ends_early() -> None:
    """The end comes from the other side, before its time, and watching ends with it."""
    recording = await _run("video_ends_early")
    assert recording.ended_early_at is not None
    assert recording.first_frame_at is not None
    assert recording.ended_early_at < recording.first_frame_at + PLAN.duration_s - 1.0
    assert "closed" in {end.code for end in (recording.written, recording.output.end) if end is not None}


@pytest.mark.parametrize("fault", ["", "video_black", "video_empty_segments"])
async def test_breaks_in_the_middle_leave_nothing_behind(fault: str) -> None:
    """Runner, orchestrator or tester end at random moments: each stream ends soon, and no task or file is left."""
    moments, plan = random.Random(11), RunnerStreamPlan(FORM, start_limit_s=2.0, duration_s=2.0)
    files: list[int] = []
    for break_off in ("nothing", "cancel", "lose", "down", "restart", "cancel"):
        async with video_session(fault=fault) as (network, client, urls, _):
            node, runner = network.orchestrators[0], network.service_ports[0].runners[0]
            channels = VideoChannels.from_answer(orjson.dumps(urls), node.spec.service_uri)
            running = asyncio.create_task(RunnerStream(plan, channels, client.open_request).run())
            if break_off != "nothing":
                await asyncio.wait([running], timeout=moments.uniform(0, 1.2))
            match break_off:
                case "cancel":
                    running.cancel()
                case "lose":
                    runner.set_healthy(False)
                case "down" | "restart":
                    node.restart(down=break_off == "down")
            (result,) = await asyncio.gather(asyncio.wait_for(running, 15), return_exceptions=True)
            if break_off == "cancel":
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert isinstance(result, RunnerStreamRecording)
                assert (result.ended_early_at is None) == (break_off == "nothing")
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "every task has ended")
        await until(lambda: not [t for t in threading.enumerate() if "video" in t.name], "every thread has ended")
        files.append(_count_open_files())
    assert files[-1] <= files[0]


async def test_channels_on_another_host_are_refused() -> None:
    """Nothing is sent to a host that the orchestrator's app names beside its own."""
    with pytest.raises(UnusableChannelsError, match="another host or port"):
        await _run("video_other_host")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"{}", "no usable URL of a channel as 'in'"),
        (orjson.dumps({"in": f"{BASE}/a"}), "no usable URL of a channel as 'out'"),
        (orjson.dumps({"in": 7, "out": [1]}), "as 'in'"),
        (orjson.dumps({"in": f"{BASE}/a", "out": f"{BASE}/a/"}), "the same channel"),
        (orjson.dumps({"in": f"{BASE}/a", "out": "https://node.example:1/ai/trickle/b"}), "another host or port"),
        (orjson.dumps({"in": f"{BASE}/a", "out": "https://node.example.org:8935/b"}), "another host or port"),
        (orjson.dumps({"in": f"{BASE}/../a", "out": f"{BASE}/b"}), "as 'in'"),
        (orjson.dumps({"in": f"{BASE}/a?x", "out": f"{BASE}/b"}), "as 'in'"),
    ],
)
def test_answers_that_name_no_channels(answer: bytes, message: str) -> None:
    """Each is an error of the app, in words."""
    with pytest.raises(UnusableChannelsError, match=message):
        VideoChannels.from_answer(answer, URI)


def test_an_answer_that_names_channels() -> None:
    """Both are at the orchestrator's origin; a slash at the end makes no difference."""
    channels = VideoChannels.from_answer(orjson.dumps({"in": f"{BASE}/a/", "out": f"{BASE}/b", "x": 1}), f"{URI}/")
    assert channels == VideoChannels(f"{BASE}/a", f"{BASE}/b")
