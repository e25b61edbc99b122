"""Judge a video stream through the app of a live runner: by who ended it, and by its frames. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobtester.domain.attempts import Connection, ConnectionState
from jobtester.domain.reasons import Outcome, Verdict
from jobtester.domain.video_judgement import VideoBar, judge_own_frames, judge_video
from jobtester.domain.video_measures import VideoMeasures

_MAY_BE_OWN_LINE = ("no_frames", "stream_ended", "timeout", "check:gap")
_MAY_BE_OWN_DECODER = ("no_frames", "timeout", "check:gap", "check:frame_rate", "check:frozen")
_MAX_BEHIND_S = 1.0


@dataclass(frozen=True, slots=True)
class RunnerStreamRun:
    """How a stream went, beside its frames. It goes to the orchestrator itself, so that nobody else can have served it.

    `ended_early_s` is when one of its channels ended although the input went on, in seconds from the call of the app;
    `end_message` says how. `output_problem` is why the output is no video that can be judged, `tester_problem` what
    failed in the tester itself. `payment_problem` stands where the tester did not go on paying, None if it did.
    `decoder_behind_s` is how long the tester's decoder kept the output waiting at most.
    """

    ended_early_s: float | None = None
    end_message: str = ""
    output_problem: str = ""
    tester_problem: str = ""
    payment_problem: Verdict | None = None
    decoder_behind_s: float = 0.0


def judge_runner_stream(
    run: RunnerStreamRun, video: VideoMeasures, bar: VideoBar, connection: Connection | None = None
) -> Verdict:
    """Return the verdict on a stream. The same arguments always give the same verdict.

    Args:
        run: how the stream went.
        video: what was counted of the output.
        bar: what the output had to reach.
        connection: what the tester's own connection to the service URI showed afterwards, where needs_own_line().
    """
    if run.tester_problem:
        return Verdict.from_code("tester_fault", run.tester_problem)
    if (own_fault := judge_own_frames(video.input)) is not None:
        return own_fault
    verdict = judge_video(video, bar, ended_early_s=run.ended_early_s, output_problem=run.output_problem)
    if verdict.outcome is not Outcome.FAILED:
        return verdict
    if run.payment_problem is not None:  # an orchestrator ends what is not paid for
        return run.payment_problem
    if run.decoder_behind_s > _MAX_BEHIND_S and verdict.code in _MAY_BE_OWN_DECODER:
        line = f"The tester's own decoder was {run.decoder_behind_s:.1f} s behind. {verdict.message}"
        return Verdict.from_code("tester_fault", line)
    if run.ended_early_s is not None and run.end_message:
        verdict = replace(verdict, message=f"{verdict.message} {run.end_message}")
    if connection is not None and connection.state is ConnectionState.UNKNOWN:
        return Verdict.from_code("unclear", f"{verdict.message} {connection.summary}")
    return verdict


def needs_own_line(verdict: Verdict) -> bool:
    """Return True if only a connection of the tester's own tells whether its line is to blame for the verdict."""
    return verdict.code in _MAY_BE_OWN_LINE
