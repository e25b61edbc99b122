"""Video judgement: who is charged for a stream follows from who surely served it and from the frames alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobtester.domain.exchanges import Ending
from jobtester.domain.reasons import Outcome
from jobtester.domain.stream_status import StreamTrace
from jobtester.domain.video_judgement import StreamRun, VideoBar, judge_stream
from jobtester.domain.video_measures import (
    Delay,
    DelayMethod,
    InputTiming,
    OutputTiming,
    PictureMeasures,
    VideoMeasures,
)

TARGET = "https://orchestrator.example:8935"
BAR = VideoBar(start_limit_s=60, min_fps=8, max_gap_s=5, max_reaction_s=12, watched_after_update_s=20)
OUTPUT = OutputTiming(700, 6.0, 30.0, 23.4, 0.3, 0, 0, 0.1)
INPUT = InputTiming(frames=864, late=3, skipped=0, fps=24.0, expected_fps=24.0)
PICTURE = PictureMeasures(512, 512, 0.0, 1, 0.0, 0.0, 0)
GOOD = VideoMeasures(OUTPUT, INPUT, Delay(DelayMethod.SCENE_CUTS, 0.4, 0.6, 14), PICTURE, (1.5,))
NOTHING = VideoMeasures(OutputTiming(0, None, 0.0, 0.0, 60.0, 1, 1, None), INPUT, Delay(), PICTURE, (None,))
TRACE = StreamTrace(orchestrator_urls=(TARGET,), states=((11.0, "ONLINE"),), ready_s=11.0, runner_starts=1)
NOBODY = StreamTrace(found_nobody_s=0.4, gateway_errors=("no orchestrators available",))
RUN = StreamRun(Ending.ANSWERED, TRACE, start_status=200, was_asked=True, candidates=5)


def output(**changes: Any) -> VideoMeasures:
    """Return good measures with another timing of the output."""
    return replace(GOOD, output=replace(OUTPUT, **changes))


def picture(**changes: Any) -> VideoMeasures:
    """Return good measures with other pictures."""
    return replace(GOOD, picture=replace(PICTURE, **changes))


def trace(**changes: Any) -> StreamRun:
    """Return a good run with another trace."""
    return replace(RUN, trace=replace(TRACE, **changes))


FAILURES = [
    ("no frame at all", RUN, NOTHING, "no_frames"),
    ("a late first frame", RUN, output(first_frame_s=61.0), "timeout"),
    ("an output that ends", replace(RUN, ended_early_s=14.0), GOOD, "stream_ended"),
    ("a gap", RUN, output(longest_gap_s=5.1), "check:gap"),
    ("few frames", RUN, output(output_fps=7.9), "check:frame_rate"),
    ("black", RUN, picture(black_share=0.95), "check:black"),
    ("frozen", RUN, picture(frozen_s=9.0), "check:frozen"),
    ("the input itself", RUN, picture(input_share=0.99), "check:unchanged"),
    ("no reaction", RUN, replace(GOOD, reactions_s=(None,)), "check:reaction"),
    ("no video", replace(RUN, output_problem="its pictures are too large"), GOOD, "check:video"),
    ("an error of the runner", trace(states=((11.0, "ONLINE"), (21.0, "ERROR"))), GOOD, "stream_error"),
    ("a restart", trace(restarts=1), GOOD, "stream_error"),
    ("a new start under the pin", trace(runner_starts=2), GOOD, "stream_error"),
]
UNSCORED = [
    ("somebody else served", trace(orchestrator_urls=("https://other.example:8935",)), GOOD, "refuted"),
    ("a part of the URL matches", trace(orchestrator_urls=(TARGET + "1",)), GOOD, "refuted"),
    ("a swap to somebody else", trace(orchestrator_urls=(TARGET, "https://other.example:8935")), GOOD, "refuted"),
    ("nobody, fresh pool", replace(RUN, trace=NOBODY), NOTHING, "not_started"),
    ("nobody, no free slot", replace(RUN, trace=NOBODY, is_advertised_busy=True), NOTHING, "busy"),
    ("nobody, failed lately", replace(RUN, trace=NOBODY, seconds_since_failure=100.0), NOTHING, "out_of_pool"),
    ("nobody of too many", replace(RUN, trace=NOBODY, candidates=21), NOTHING, "too_many_candidates"),
    ("nobody is named", replace(RUN, trace=StreamTrace()), GOOD, "unproven"),
    (
        "never called back",
        replace(RUN, trace=StreamTrace(), was_asked=False),
        NOTHING,
        "tester_fault",
    ),
    ("the gateway knows nothing", replace(RUN, trace=StreamTrace(unknown_s=11.0)), NOTHING, "gateway_fault"),
    ("input not taken", replace(RUN, intake_problem="The gateway did not take it."), NOTHING, "gateway_fault"),
    ("a gateway that restarted", trace(is_forgotten=True), NOTHING, "gateway_lost"),
    ("a gateway that restarted early", replace(RUN, trace=StreamTrace(is_forgotten=True)), NOTHING, "gateway_lost"),
    ("nobody, then a restart", replace(RUN, trace=replace(NOBODY, is_forgotten=True)), NOTHING, "not_started"),
    ("own frames late", RUN, replace(NOTHING, input=replace(INPUT, late=100)), "tester_fault"),
    ("input degraded", trace(states=((11.0, "DEGRADED_INPUT"),)), NOTHING, "tester_fault"),
    ("start refused", replace(RUN, start_status=400, detail="Invalid model params"), NOTHING, "tester_fault"),
    ("start failed", replace(RUN, start_status=502), NOTHING, "gateway_fault"),
    ("no gateway", replace(RUN, ending=Ending.REFUSED, start_status=None), NOTHING, "refused"),
    ("gateway lost", replace(RUN, is_gateway_alive=False), NOTHING, "gateway_lost"),
    ("port taken", replace(RUN, tester_problem="cannot listen on 9997"), NOTHING, "tester_fault"),
    ("tester stopped", replace(RUN, ending=Ending.ABORTED), GOOD, "shutdown"),
]


def test_a_good_stream_passes() -> None:
    """Enough frames in time, with a reaction, by the named orchestrator."""
    assert judge_stream(RUN, TARGET, GOOD, BAR).outcome is Outcome.PASSED


@pytest.mark.parametrize(("run", "video", "code"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_what_the_frames_prove_is_charged_to_the_orchestrator(run: StreamRun, video: VideoMeasures, code: str) -> None:
    """Each failure of an output that surely is the target's has its reason."""
    verdict = judge_stream(run, TARGET, video, BAR)
    assert (verdict.code, verdict.outcome) == (code, Outcome.FAILED)


@pytest.mark.parametrize(("run", "video", "code"), [row[1:] for row in UNSCORED], ids=[row[0] for row in UNSCORED])
def test_what_is_not_sure_is_charged_to_nobody(run: StreamRun, video: VideoMeasures, code: str) -> None:
    """Whatever the frames show, nobody is scored for it."""
    verdict = judge_stream(run, TARGET, video, BAR)
    assert (verdict.code, verdict.outcome) == (code, Outcome.UNSCORED)


@pytest.mark.parametrize("run", [row[1] for row in UNSCORED], ids=[row[0] for row in UNSCORED])
def test_no_failure_of_frames_outweighs_a_doubt_about_who_served(run: StreamRun) -> None:
    """A stream that would fail by its frames is unscored too where it is not sure whose it is."""
    if run is not RUN:
        assert judge_stream(run, TARGET, NOTHING, BAR).outcome is Outcome.UNSCORED


def test_a_model_that_passes_its_input_on_may_do_so() -> None:
    """For such a model the input is the right output."""
    bar = replace(BAR, passes_through=True, watched_after_update_s=None)
    assert judge_stream(RUN, TARGET, picture(input_share=1.0), bar).outcome is Outcome.PASSED


def test_a_reaction_is_proved_by_the_status_or_by_the_picture() -> None:
    """Either of the two is enough, and a time that is too short to show one charges nobody."""
    silent = replace(GOOD, reactions_s=(None,))
    assert judge_stream(trace(applied_s=22.0), TARGET, silent, BAR).outcome is Outcome.PASSED
    assert judge_stream(RUN, TARGET, silent, replace(BAR, watched_after_update_s=11.0)).outcome is Outcome.PASSED
    assert judge_stream(RUN, TARGET, silent, replace(BAR, watched_after_update_s=None)).outcome is Outcome.PASSED
