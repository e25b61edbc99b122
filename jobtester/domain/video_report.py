"""Video report: what was measured of a live video job, by the names under which it is stored, shown and posted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobtester.domain.stream_status import StreamTrace
from jobtester.domain.video_measures import VideoMeasures


def make_measures(video: VideoMeasures, trace: StreamTrace | None = None) -> Mapping[str, float]:
    """Return the numbers of a job by name; what was not measured is missing. Names with `_s` are seconds."""
    output, sent = video.output, video.input
    reaction = next((seconds for seconds in video.reactions_s if seconds is not None), None)
    values = {
        "first_frame_s": output.first_frame_s,
        "frames": float(output.frames),
        "output_fps": output.output_fps,
        "longest_gap_s": output.longest_gap_s,
        "stalls_over_1s": float(output.stalls_over_1s),
        "stalls_over_10s": float(output.stalls_over_10s),
        "input_fps": sent.fps,
        "input_late_share": sent.late_share,
        "delay_p50_s": video.delay.p50_s,
        "delay_p95_s": video.delay.p95_s,
        "reaction_s": reaction,
        "black_share": video.picture.black_share,
        "frozen_s": video.picture.frozen_s,
        "input_share": video.picture.input_share,
    }
    if trace is not None:
        values |= {
            "ready_s": trace.ready_s,
            "params_applied_s": trace.applied_s,
            "reported_fps": trace.inference_fps,
            "swaps": float(trace.swaps),
            "restarts": float(trace.restarts),
        }
    return {name: round(value, 6) for name, value in values.items() if value is not None}


def make_response(video: VideoMeasures, trace: StreamTrace | None = None, *, way: str) -> Mapping[str, Any]:
    """Return what stands for the answer of a job: its measures, and what is not a number.

    `way` names how the output reached the tester: times of the first frame are comparable only within one way.
    """
    response: dict[str, Any] = {
        "way": way,
        **make_measures(video, trace),
        "delay_method": video.delay.method.value,
        "size": f"{video.picture.width}x{video.picture.height}",
    }
    if trace is not None:
        response |= {
            "orchestrators": list(trace.orchestrator_urls),
            "states": [[round(at_s, 1), state] for at_s, state in trace.states],
            "errors": [*trace.gateway_errors, *([trace.runner_error] if trace.runner_error else [])],
        }
    return response
