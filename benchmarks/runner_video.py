"""Measure a video stream through the app of a simulated live runner: frames lost, delay, and the first frame's time.

Simulator and tester share one process, which is its own, so the delay has the work of both in it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass

from benchmarks.processes import run_module
from benchmarks.rows import Row
from jobtester.live_runner.video_stream import RunnerStream, RunnerStreamPlan, RunnerStreamRecording, VideoChannels
from jobtester.logs import configure_logs
from jobtester.video.meter import Measurement, measure_video
from jobtester.video.pattern import VideoFormat
from tests.harness.video_apps import video_session

_FORM = VideoFormat(512, 512, 24)
_SECONDS = 10.0
_FIRST_FRAMES = 5
_START_S = 10.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What one stream showed, and the largest error of a first frame's time among several streams, in seconds."""

    sent: int
    received: int
    late: int
    delay_p50_s: float
    delay_p95_s: float
    first_frame_error_s: float


async def measure() -> list[Row]:
    """Measure one stream of ten seconds, and the first frames of some short ones."""
    figures = Figures(**await run_module("benchmarks.runner_video"))
    way = "video through a live runner's channels"
    return [
        Row.with_bar(f"{way}: frames received ÷ sent", figures.received / figures.sent, at_least=1),
        Row.with_bar(f"{way}: frames late or skipped", figures.late / figures.sent, "share", at_most=0.01),
        Row.with_bar(f"{way}: delay, p50", figures.delay_p50_s * 1e3, "ms", at_most=20),
        Row.with_bar(f"{way}: delay, p95", figures.delay_p95_s * 1e3, "ms", at_most=100),
        Row.with_bar(
            f"{way}: error of the first frame's time, largest", figures.first_frame_error_s * 1e3, "ms", at_most=20
        ),
    ]


async def _measure() -> Figures:
    recording, error_s = await _stream(_SECONDS)
    errors = [error_s, *[(await _stream(0.5))[1] for _ in range(_FIRST_FRAMES)]]
    video = measure_video(
        recording.decoded.frames, recording.sent, Measurement(recording.started, recording.decoded.frames[-1].arrived)
    )
    return Figures(
        sent=video.input.frames,
        received=video.picture.distinct_marks,
        late=video.input.late + video.input.skipped,
        delay_p50_s=video.delay.p50_s or 0.0,
        delay_p95_s=video.delay.p95_s or 0.0,
        first_frame_error_s=max(errors),
    )


async def _stream(seconds: float) -> tuple[RunnerStreamRecording, float]:
    """Run one stream; return it, and how much the time of its first frame differs from the app's own."""
    async with video_session() as (network, client, urls, _):
        plan = RunnerStreamPlan(_FORM, _START_S, seconds)
        recording = await RunnerStream(plan, VideoChannels(urls["in"], urls["out"]), client.open_request).run()
        truth = network.service_ports[0].video_streams[0].first_output_at
    assert truth is not None
    assert recording.first_frame_at is not None
    return recording, abs(recording.first_frame_at - truth)


if __name__ == "__main__":
    configure_logs("error", "console")
    print(json.dumps(asdict(asyncio.run(_measure()))))
