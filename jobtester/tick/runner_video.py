"""Run the video stream of one live runner's session, and judge it by the frames that came back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.reasons import Verdict
from jobtester.domain.runner_video_judgement import RunnerStreamRun, judge_runner_stream, needs_own_line
from jobtester.domain.video_report import make_measures
from jobtester.gateway.connection_probe import ConnectionProbe
from jobtester.live_runner.video_stream import RunnerStream, RunnerStreamPlan, RunnerStreamRecording, VideoChannels
from jobtester.pipelines.video_rules import VideoRules
from jobtester.tick.received_video import ReceivedVideo, as_answer, make_bar
from jobtester.video.meter import Measurement
from jobtester.video.pattern import VideoFormat
from jobtester.video.trickle import OpenRequest

_WAY = "trickle in, trickle out"


@dataclass(frozen=True, slots=True)
class RunnerVideo:
    """A stream that is over. `call` is the exchange in which the app told its channels; times count from it."""

    rules: VideoRules
    call: Exchange
    recording: RunnerStreamRecording

    @classmethod
    async def run(cls, job: Job, rules: VideoRules, call: Exchange, open_request: OpenRequest) -> RunnerVideo:
        """Run the stream through the channels that the app's answer names.

        Raises UnusableChannelsError if it names none, and never for what the network does from then on.
        """
        channels = VideoChannels.from_answer(call.body, job.target.service_uri)
        waited_s = time.monotonic() - call.sent_monotonic
        plan = RunnerStreamPlan(
            VideoFormat(rules.width, rules.height, rules.fps), max(0.0, job.timeout_s - waited_s), rules.duration
        )
        return cls(rules, call, await RunnerStream(plan, channels, open_request).run())

    @property
    def exchange(self) -> Exchange:
        """Return the stream as an exchange: its round trip is the time to the first frame, or all of it without one."""
        first_frame_at = self.recording.first_frame_at
        ended = self.recording.watched_until if first_frame_at is None else first_frame_at
        return replace(self.call, ended_monotonic=ended)

    async def judge(self, job: Job, probe: ConnectionProbe, payment_problem: Verdict | None) -> JudgedVideo:
        """Measure the frames and judge the stream by them; where none came, see whose line is at fault."""
        recording = self.recording
        received = ReceivedVideo((recording.decoded,), recording.sent)
        video = await received.measure(Measurement(self.call.sent_monotonic, recording.watched_until))
        ended_early_s = None
        if recording.ended_early_at is not None:
            ended_early_s = recording.ended_early_at - self.call.sent_monotonic
        run = RunnerStreamRun(
            ended_early_s=ended_early_s,
            end_message=_describe_end(recording),
            # Of a stream without a byte there is nothing to say but that no frame came.
            output_problem=received.find_problem() if recording.output.received_bytes else "",
            tester_problem=recording.input_problem or received.find_decoder_problem(),
            payment_problem=payment_problem,
            decoder_behind_s=recording.output.longest_feed_s,
        )
        bar = make_bar(self.rules, job.timeout_s)
        verdict, line = judge_runner_stream(run, video, bar), ""
        if needs_own_line(verdict):
            connection = await probe.probe(job.target.service_uri, needs_tls=True)
            verdict, line = judge_runner_stream(run, video, bar, connection), connection.summary
        return JudgedVideo(verdict, as_answer(self.exchange, video, way=_WAY), make_measures(video), line, received)


@dataclass(frozen=True, slots=True)
class JudgedVideo:
    """A verdict with what it rests on: the measures as an answer and as numbers, a line of evidence, and the frames."""

    verdict: Verdict
    exchange: Exchange
    measures: Mapping[str, float]
    line: str
    received: ReceivedVideo


def has_answer(call: Exchange) -> bool:
    """Return True if the app has answered with a success, which has to name the channels."""
    return call.ending is Ending.ANSWERED and call.status is not None and 200 <= call.status < 300


def _describe_end(recording: RunnerStreamRecording) -> str:
    """Return how the channels ended, by the other side or by a broken connection."""
    ends = (("input", recording.written), ("output", recording.output.end))
    lines = [f"{name}: {end.message}" for name, end in ends if end is not None and end.code != "finished"]
    return f"Channels: {'; '.join(lines)}." if lines else ""
