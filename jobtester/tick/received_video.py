"""Turn the frames of a stream, through a gateway or not, into measures, the limits to reach, and a stored answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson

from jobtester.domain.exchanges import Exchange
from jobtester.domain.result_details import ReceivedFile, StreamDetails
from jobtester.domain.stream_status import StreamTrace
from jobtester.domain.video_judgement import VideoBar
from jobtester.domain.video_measures import VideoMeasures
from jobtester.domain.video_report import make_response
from jobtester.pipelines.video_rules import VideoRules
from jobtester.video.decoder import STREAM_PROBLEMS, DecodedVideo
from jobtester.video.delay import delays_over_time
from jobtester.video.frame_record import strip_size
from jobtester.video.frame_schedule import SentFrames
from jobtester.video.meter import Measurement, measure_video

_EXCESSES = ("unsupported", "too_large", "too_many_frames", "too_heavy")


@dataclass(frozen=True, slots=True)
class ReceivedVideo:
    """What came back of a stream: its outputs in their order, one for each connection that brought any."""

    outputs: Sequence[DecodedVideo]
    sent: SentFrames

    async def measure(self, measurement: Measurement) -> VideoMeasures:
        """Measure all frames, on a thread."""
        frames = [frame for output in self.outputs for frame in output.frames]
        return await asyncio.to_thread(measure_video, frames, self.sent, measurement)

    def find_problem(self) -> str:
        """Return why the output is no video that can be judged, empty if it is one."""
        has_frames = any(output.frames for output in self.outputs)
        for problem in (output.problem for output in self.outputs):
            # An output that is cut in the middle of a frame is no fault: it ends like that whenever a stream is ended.
            if problem is not None and problem.code in (_EXCESSES if has_frames else STREAM_PROBLEMS):
                return problem.message
        return ""

    def make_strip(self, max_bytes: int) -> ReceivedFile | None:
        """Return a few of the received frames as one picture to keep; None without any, or if it is too large."""
        longest = max(self.outputs, key=lambda output: len(output.frames), default=None)
        strip = next((still for still in longest.stills if still.why == "strip"), None) if longest is not None else None
        if longest is None or strip is None or len(strip.jpeg) > max_bytes:
            return None
        count = sum(still.why == "evenly" for still in longest.stills)
        width, height = strip_size(count, longest.frames[0].width, longest.frames[0].height)
        digest = hashlib.sha256(strip.jpeg).hexdigest()
        return ReceivedFile("image/jpeg", strip.jpeg, digest, len(strip.jpeg), width, height)

    def describe(self, started: float, trace: StreamTrace | None = None) -> StreamDetails:
        """Return what the stream did over time, from a start in monotonic seconds."""
        frames = [frame for output in self.outputs for frame in output.frames]
        delays = tuple((arrived - started, delay_s) for arrived, delay_s in delays_over_time(frames, self.sent))
        return StreamDetails(delays, trace.states if trace is not None else ())

    def find_decoder_problem(self) -> str:
        """Return how the tester's own decoder failed, empty if it did not."""
        problems = (output.problem for output in self.outputs)
        return next((problem.message for problem in problems if problem and problem.code not in STREAM_PROBLEMS), "")


def make_bar(rules: VideoRules, start_limit_s: float, watched_after_update_s: float | None = None) -> VideoBar:
    """Return what an output has to reach by a pipeline's rules; `start_limit_s` is the job's own."""
    return VideoBar(
        start_limit_s=start_limit_s,
        min_fps=rules.min_fps,
        max_gap_s=rules.max_gap,
        max_reaction_s=rules.max_reaction,
        passes_through=rules.passes_through,
        watched_after_update_s=watched_after_update_s,
    )


def as_answer(exchange: Exchange, video: VideoMeasures, trace: StreamTrace | None = None, *, way: str) -> Exchange:
    """Return the exchange of a stream with what was measured as its answer: it has no other to store and to post."""
    return replace(exchange, body=orjson.dumps(make_response(video, trace, way=way)))
