"""Judge live video by what was counted: first the stream that carried it, then the frames. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from jobtester.domain.exchanges import Ending
from jobtester.domain.reasons import Outcome, Verdict
from jobtester.domain.stream_status import DEGRADED_INPUT, ERROR, StreamTrace
from jobtester.domain.video_measures import InputTiming, VideoMeasures

MAX_CANDIDATES = 20  # a gateway tries so many orchestrators, and those that were not named count too
_MAX_LATE_SHARE = 0.05  # of the tester's own frames
_MAX_UNKNOWN_S = 10.0
_MAX_SHARE = 0.9  # of black pictures, and of pictures that are the input
_REFUSALS_OF_TESTER = (400, 403, 409, 413, 415)


@dataclass(frozen=True, slots=True)
class VideoBar:
    """What an output has to reach; times in seconds.

    `watched_after_update_s` is how long the output was watched after the parameters were changed, None if they were
    not. `passes_through` means that an output equal to the input is right.
    """

    start_limit_s: float
    min_fps: float
    max_gap_s: float
    max_reaction_s: float
    passes_through: bool = False
    watched_after_update_s: float | None = None


@dataclass(frozen=True, slots=True)
class StreamRun:
    """How a stream through a gateway went, beside its frames; seconds count from the start call.

    `was_asked` means that the gateway called the tester back, `intake_problem` is why it did not take the whole input.
    `ended_early_s` is when the output ended although the input went on. `seconds_since_failure` is the age of
    an earlier failure of the orchestrator on this gateway, None if its pool has been renewed since. `output_problem` is
    why the output is no video that can be judged, `tester_problem` what failed in the tester itself.
    """

    ending: Ending
    trace: StreamTrace
    start_status: int | None = None
    detail: str = ""
    was_asked: bool = False
    intake_problem: str = ""
    ended_early_s: float | None = None
    output_problem: str = ""
    candidates: int = 0
    is_advertised_busy: bool = False
    seconds_since_failure: float | None = None
    is_gateway_alive: bool = True
    tester_problem: str = ""


def judge_stream(run: StreamRun, service_uri: str, video: VideoMeasures, bar: VideoBar) -> Verdict:
    """Return the verdict on a live video job. Nobody is scored unless the gateway names the target and nobody else.

    Args:
        run: how the gateway and the stream behaved.
        service_uri: the target, which the whole URL of the status has to match.
        video: what was counted of the output.
        bar: what the output had to reach.
    """
    if (early := _judge_start(run)) is not None:
        return early
    is_target = run.trace.was_served_by(service_uri)
    if is_target is None:
        return _judge_nobody(run)
    if not is_target:
        names = ", ".join(run.trace.orchestrator_urls[:5])
        return Verdict.from_code("refuted", f"The gateway gave the stream to {names}.")
    if not run.is_gateway_alive:
        return Verdict.from_code("gateway_lost", run.detail)
    if (problem := _find_own_fault(run, video)) is not None:
        return problem
    verdict = _judge_runner(run) or judge_video(
        video, bar, ended_early_s=run.ended_early_s, output_problem=run.output_problem
    )
    verdict = _judge_reaction(verdict, run.trace, video, bar)
    if verdict.outcome is Outcome.FAILED and any(state == DEGRADED_INPUT for _, state in run.trace.states):
        line = (
            f"The runner received too few frames, which may be the tester's or the gateway's fault. {verdict.message}"
        )
        return Verdict.from_code("tester_fault", line)
    return verdict


def judge_video(
    video: VideoMeasures, bar: VideoBar, *, ended_early_s: float | None = None, output_problem: str = ""
) -> Verdict:
    """Return the verdict on an output that the target surely made, by its frames alone."""
    output, picture = video.output, video.picture
    if output_problem:
        return Verdict.from_code("check:video", f"The output is no video that can be judged: {output_problem}.")
    if output.first_frame_s is None and ended_early_s is not None:
        line = f"The stream ended after {ended_early_s:.1f} s, and no frame had come."
        return Verdict.from_code("no_frames", line)
    if output.first_frame_s is None:
        return Verdict.from_code("no_frames", f"No frame came within {bar.start_limit_s:g} s.")
    if output.first_frame_s > bar.start_limit_s:
        line = f"The first frame came after {output.first_frame_s:.1f} s; the limit is {bar.start_limit_s:g} s."
        return Verdict.from_code("timeout", line)
    if ended_early_s is not None:
        line = f"The output ended after {output.frames} frames, {ended_early_s:.1f} s after the start."
        return Verdict.from_code("stream_ended", line)
    if output.longest_gap_s > bar.max_gap_s:
        line = f"No frame came for {output.longest_gap_s:.1f} s; at most {bar.max_gap_s:g} s are allowed."
        return Verdict.from_code("check:gap", line)
    if output.output_fps < bar.min_fps:
        line = f"{output.output_fps:.1f} frames came per second; at least {bar.min_fps:g} are needed."
        return Verdict.from_code("check:frame_rate", line)
    if picture.black_share > _MAX_SHARE:
        return Verdict.from_code("check:black", f"{picture.black_share:.0%} of the frames are black.")
    if picture.frozen_s > bar.max_gap_s:
        line = f"The picture did not change for {picture.frozen_s:.1f} s, while the input moved."
        return Verdict.from_code("check:frozen", line)
    if picture.input_share > _MAX_SHARE and not bar.passes_through:
        return Verdict.from_code("check:unchanged", f"{picture.input_share:.0%} of the frames are the input itself.")
    return Verdict.from_code("ok")


def judge_own_frames(sent: InputTiming) -> Verdict | None:
    """Return the verdict on a stream whose input came late, so that its output proves nothing; else None."""
    if sent.late_share <= _MAX_LATE_SHARE:
        return None
    line = f"{sent.late_share:.0%} of the tester's own frames were late; its machine has too much to do."
    return Verdict.from_code("tester_fault", line)


def _judge_start(run: StreamRun) -> Verdict | None:
    """Return the verdict on a stream that did not begin; None for one that did."""
    if run.ending is Ending.ABORTED:
        return Verdict.from_code("shutdown")
    if run.tester_problem:
        return Verdict.from_code("tester_fault", run.tester_problem)
    if run.ending is not Ending.ANSWERED:
        lost = "gateway_fault" if run.is_gateway_alive else "gateway_lost"
        return Verdict.from_code("refused" if run.ending is Ending.REFUSED else lost, run.detail)
    if run.start_status in _REFUSALS_OF_TESTER:
        return Verdict.from_code("tester_fault", f"The gateway refused the stream: {run.start_status} {run.detail}")
    if run.start_status != 200:
        return Verdict.from_code("gateway_fault", f"The start was answered with {run.start_status} {run.detail}")
    return None


def _judge_nobody(run: StreamRun) -> Verdict:
    """Return the verdict on a stream of which the gateway named no orchestrator: nobody is scored."""
    if not run.is_gateway_alive:
        return Verdict.from_code("gateway_lost", run.detail)
    if run.trace.found_nobody_s is not None:
        if run.is_advertised_busy:
            return Verdict.from_code("busy", "The gateway found nobody, and the orchestrator advertises no free slot.")
        if run.candidates > MAX_CANDIDATES:
            line = f"{run.candidates} orchestrators offer the model, and the gateway tries only {MAX_CANDIDATES}."
            return Verdict.from_code("too_many_candidates", line)
        if run.seconds_since_failure is not None:
            line = f"A stream to it failed on this gateway {run.seconds_since_failure:.0f} s before."
            return Verdict.from_code("out_of_pool", line)
        return Verdict.from_code("not_started")
    if run.trace.is_forgotten:
        return _judge_forgotten()
    if run.trace.unknown_s > _MAX_UNKNOWN_S:
        return Verdict.from_code(
            "gateway_fault", f"The gateway knew nothing of the stream for {run.trace.unknown_s:.0f} s."
        )
    if not run.was_asked:
        return Verdict.from_code(
            "tester_fault", "The gateway never called the tester back; see live_video.callback_host."
        )
    return Verdict.from_code(
        "unproven", "The gateway never named the stream's orchestrator, whose runner sent no event."
    )


def _judge_forgotten() -> Verdict:
    return Verdict.from_code("gateway_lost", "The gateway no longer knew the stream, as after a restart.")


def _find_own_fault(run: StreamRun, video: VideoMeasures) -> Verdict | None:
    """Return the verdict where the tester or the gateway spoiled the stream; None if neither did."""
    if run.trace.is_forgotten:
        return _judge_forgotten()
    if run.intake_problem:
        return Verdict.from_code("gateway_fault", run.intake_problem)
    return judge_own_frames(video.input)


def _judge_runner(run: StreamRun) -> Verdict | None:
    """Return the verdict on a runner that reports a failure of its own; None for any other."""
    trace = run.trace
    if trace.last_state == ERROR:
        return Verdict.from_code(
            "stream_error", f"The runner reports an error: {trace.runner_error or 'no reason given'}"
        )
    if trace.restarts or trace.swaps:
        count = max(trace.restarts, trace.swaps)
        return Verdict.from_code("stream_error", f"The runner restarted {count} times during the stream.")
    return None


def _judge_reaction(verdict: Verdict, trace: StreamTrace, video: VideoMeasures, bar: VideoBar) -> Verdict:
    """Return the verdict after the change of parameters: a runner has to report it, or the picture has to show it."""
    watched_s = bar.watched_after_update_s
    if verdict.code != "ok" or watched_s is None or watched_s < bar.max_reaction_s:
        return verdict
    if trace.applied_s is not None or any(reaction is not None for reaction in video.reactions_s):
        return verdict
    line = f"The parameters were changed, and within {watched_s:.0f} s neither the picture nor the status showed it."
    return Verdict.from_code("check:reaction", line)
