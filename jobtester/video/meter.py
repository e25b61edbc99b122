"""The meter: measure a video by the records of its frames and by what was sent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jobtester.domain.video_measures import InputTiming, OutputTiming, PictureMeasures, VideoMeasures
from jobtester.video.delay import measure_delay
from jobtester.video.fingerprints import is_black, looks_equal
from jobtester.video.frame_record import FrameRecord
from jobtester.video.frame_schedule import SentFrames
from jobtester.video.reaction import measure_reaction

_STALL_S = 1.0
_LONG_STALL_S = 10.0
# A gateway looks at an output for seconds before it sends it. What waited meanwhile comes at once with the first frame:
# counted, it would lend a slow output frames per second, and a fast one a delay.
_BACKLOG_S = 1.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """The monotonic times of the start call, of the end of measuring, and of each change of parameters in order.

    Frames that arrive after `ended` do not count.
    """

    started: float
    ended: float
    updates: tuple[float, ...] = ()


def measure_video(frames: Sequence[FrameRecord], sent: SentFrames, measurement: Measurement) -> VideoMeasures:
    """Return the measures of one video; takes up to some tenths of a second.

    `frames` are in the order of decoding; those of several outputs come one output after the other.
    """
    decoded = [frame for frame in frames if frame.arrived <= measurement.ended]
    arrived = sorted(decoded, key=lambda frame: frame.arrived)
    return VideoMeasures(
        output=_measure_output(arrived, _find_longest_step(decoded), measurement),
        input=_measure_input(sent),
        delay=measure_delay(_without_backlog(arrived, measurement.ended), sent),
        picture=_measure_pictures(arrived, measurement.ended),
        reactions_s=tuple(
            measure_reaction(arrived, updated, until)
            for updated, until in pairwise((*measurement.updates, measurement.ended))
        ),
    )


def _find_longest_step(frames: Sequence[FrameRecord]) -> float | None:
    pts = [frame.pts_s for frame in frames if frame.pts_s is not None]
    # Segments of a careless writer each begin at 0: a step back is no gap.
    return max((later - earlier for earlier, later in pairwise(pts) if later >= earlier), default=None)


def _measure_output(
    frames: Sequence[FrameRecord], longest_pts_gap_s: float | None, measurement: Measurement
) -> OutputTiming:
    ended = measurement.ended
    if not frames:
        waited = ended - measurement.started
        return OutputTiming(0, None, 0.0, 0.0, waited, int(waited > _STALL_S), int(waited > _LONG_STALL_S), None)
    gaps = [later - earlier for earlier, later in pairwise([*(frame.arrived for frame in frames), ended])]
    output_s = ended - frames[0].arrived
    return OutputTiming(
        frames=len(frames),
        first_frame_s=frames[0].arrived - measurement.started,
        output_s=output_s,
        output_fps=_measure_rate(frames, ended),
        longest_gap_s=max(gaps),
        stalls_over_1s=sum(gap > _STALL_S for gap in gaps),
        stalls_over_10s=sum(gap > _LONG_STALL_S for gap in gaps),
        longest_pts_gap_s=longest_pts_gap_s,
    )


def _measure_rate(frames: Sequence[FrameRecord], ended: float) -> float:
    steady = _without_backlog(frames, ended)
    if steady is frames:
        output_s = ended - frames[0].arrived
        return (len(frames) - 1) / output_s if output_s > 0 else 0.0
    return len(steady) / (ended - frames[0].arrived - _BACKLOG_S)


def _without_backlog(frames: Sequence[FrameRecord], ended: float) -> Sequence[FrameRecord]:
    """Return the frames that arrived after the first moments; all of them where the video is hardly longer."""
    if not frames or ended - frames[0].arrived <= 2 * _BACKLOG_S:
        return frames
    return [frame for frame in frames if frame.arrived > frames[0].arrived + _BACKLOG_S]


def _measure_input(sent: SentFrames) -> InputTiming:
    fps = 0.0
    if len(sent.times) > 1:
        first, last = min(sent.times.values()), max(sent.times.values())
        fps = (len(sent.times) - 1) / (last - first) if last > first else 0.0
    return InputTiming(len(sent.times), sent.late, sent.skipped, fps, float(sent.form.fps), sent.span_s)


def _measure_pictures(frames: Sequence[FrameRecord], ended: float) -> PictureMeasures:
    if not frames:
        return PictureMeasures(0, 0, 0.0, 0, 0.0, 0.0, 0)
    frozen_frames, frozen_s = _find_longest_run(frames, ended)
    count = len(frames)
    return PictureMeasures(
        width=frames[0].width,
        height=frames[0].height,
        black_share=sum(is_black(frame.fingerprint) for frame in frames) / count,
        frozen_frames=frozen_frames,
        frozen_s=frozen_s,
        repeated_share=sum(looks_equal(a.fingerprint, b.fingerprint) for a, b in pairwise(frames)) / count,
        input_share=sum(frame.is_input for frame in frames) / count,
        distinct_marks=len({frame.mark for frame in frames if frame.mark is not None}),
    )


def _find_longest_run(frames: Sequence[FrameRecord], ended: float) -> tuple[int, float]:
    """Return frames and seconds of the longest run of equal pictures, 0 and 0 if no two are equal.

    All are compared with the first of their run: a picture that changes slowly is not frozen.
    """
    longest = (0, 0.0)
    start = 0
    for place in range(1, len(frames) + 1):
        is_over = place == len(frames)
        if not is_over and looks_equal(frames[start].fingerprint, frames[place].fingerprint):
            continue
        seconds = (ended if is_over else frames[place].arrived) - frames[start].arrived
        if place - start > 1 and seconds > longest[1]:
            longest = (place - start, seconds)
        start = place
    return longest
