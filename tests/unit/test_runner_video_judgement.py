"""Judgement of streams through live runners: who is charged follows from who ended them, and from the frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobtester.domain.attempts import Connection, ConnectionState
from jobtester.domain.reasons import Outcome, Verdict
from jobtester.domain.runner_video_judgement import RunnerStreamRun, judge_runner_stream, needs_own_line
from jobtester.domain.video_judgement import VideoBar
from jobtester.domain.video_measures import (
    Delay,
    DelayMethod,
    InputTiming,
    OutputTiming,
    PictureMeasures,
    VideoMeasures,
)

BAR = VideoBar(start_limit_s=60, min_fps=8, max_gap_s=5, max_reaction_s=12, passes_through=True)
INPUT = InputTiming(frames=864, late=3, skipped=0, fps=24.0, expected_fps=24.0)
GOOD = VideoMeasures(
    OutputTiming(700, 1.0, 30.0, 23.4, 0.3, 0, 0, 0.1),
    INPUT,
    Delay(DelayMethod.MARKS, 0.04, 0.06, 700),
    PictureMeasures(512, 512, 0.0, 1, 0.0, 1.0, 700),
)
NOTHING = replace(GOOD, output=OutputTiming(0, None, 0.0, 0.0, 60.0, 1, 1, None))
LATE = replace(GOOD, input=replace(INPUT, late=100))
RUN = RunnerStreamRun()
ENDED = RunnerStreamRun(ended_early_s=8.0, end_message="Channels: output: the other side closed the channel.")
NO_LINE = Connection(ConnectionState.UNKNOWN, "the tester cannot connect to anything")
GONE = Connection(ConnectionState.UNREACHABLE, "the tester could not connect, while another orchestrator answers")
THERE = Connection(ConnectionState.REACHABLE, "the tester can connect")
UNPAID = Verdict.from_code("signer_fault", "The signer is gone.")


@pytest.mark.parametrize(
    ("run", "video", "connection", "code"),
    [
        (RUN, GOOD, None, "ok"),
        (RUN, NOTHING, THERE, "no_frames"),
        (RUN, NOTHING, GONE, "no_frames"),
        (RUN, NOTHING, NO_LINE, "unclear"),
        (ENDED, GOOD, THERE, "stream_ended"),
        (ENDED, GOOD, GONE, "stream_ended"),
        (ENDED, GOOD, NO_LINE, "unclear"),
        (ENDED, NOTHING, THERE, "no_frames"),
        (RUN, replace(GOOD, output=replace(GOOD.output, longest_gap_s=6.0)), THERE, "check:gap"),
        (RUN, replace(GOOD, output=replace(GOOD.output, output_fps=7.0)), None, "check:frame_rate"),
        (RUN, replace(GOOD, picture=replace(GOOD.picture, black_share=1.0)), None, "check:black"),
        (RUN, replace(GOOD, picture=replace(GOOD.picture, frozen_s=20.0)), None, "check:frozen"),
        (replace(RUN, output_problem="it is no video"), NOTHING, None, "check:video"),
        (RUN, LATE, None, "tester_fault"),
        (ENDED, LATE, THERE, "tester_fault"),
        (replace(RUN, tester_problem="the encoder failed"), NOTHING, THERE, "tester_fault"),
        (replace(ENDED, payment_problem=UNPAID), GOOD, THERE, "signer_fault"),
        (replace(RUN, payment_problem=UNPAID), GOOD, None, "ok"),
        (replace(RUN, decoder_behind_s=1.1), NOTHING, THERE, "tester_fault"),
        (replace(RUN, decoder_behind_s=0.9), NOTHING, THERE, "no_frames"),
        (replace(RUN, decoder_behind_s=1.1), GOOD, None, "ok"),
        (replace(ENDED, decoder_behind_s=1.1), GOOD, THERE, "stream_ended"),
    ],
)
def test_each_stream_has_one_reason(
    run: RunnerStreamRun, video: VideoMeasures, connection: Connection | None, code: str
) -> None:
    """The tester's own faults come first, then what was not paid for, then the frames, where its line works."""
    assert judge_runner_stream(run, video, BAR, connection).code == code


@pytest.mark.parametrize("run", [replace(RUN, tester_problem="x"), ENDED, replace(ENDED, payment_problem=UNPAID)])
@pytest.mark.parametrize("connection", [None, NO_LINE])
def test_late_frames_of_the_testers_own_are_never_charged(run: RunnerStreamRun, connection: Any) -> None:
    """Whatever came back of an input that was not sent in time says nothing of the orchestrator."""
    assert judge_runner_stream(run, LATE, BAR, connection).outcome is Outcome.UNSCORED


def test_the_end_of_a_stream_is_told_in_words() -> None:
    """The message says which channel ended and how."""
    assert "the other side closed the channel" in judge_runner_stream(ENDED, GOOD, BAR, THERE).message


def test_what_a_line_can_cause_needs_a_connection() -> None:
    """A picture that is wrong cannot come from a bad line."""
    needing = [code for code in ("ok", "no_frames", "stream_ended", "check:gap", "check:black") if _needs(code)]
    assert needing == ["no_frames", "stream_ended", "check:gap"]


def _needs(code: str) -> bool:
    return needs_own_line(Verdict.from_code(code))
