"""Measure the delay from sending a frame to receiving what was made of it: by marks, or else by scene cuts. Pure."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from jobtester.domain.percentiles import percentile
from jobtester.domain.video_measures import Delay, DelayMethod
from jobtester.video.frame_record import FrameRecord
from jobtester.video.frame_schedule import SentFrames
from jobtester.video.pattern import SCENE_S

_MIN_MARKED_SHARE = 0.1  # a model's picture shows a valid mark by chance once in 65,536 frames
_MIN_SCENE_CONTRAST = 25  # of 255, between bright and dark scenes; below, there is nothing to see
_EDGE_SHARE = 0.1
_MAX_SHOWN = 120
_MAX_CUT_DELAY_S = 2 * SCENE_S


def measure_delay(frames: Sequence[FrameRecord], sent: SentFrames) -> Delay:
    """Return the delay of a video, from frames in the order in which they arrived."""
    method, delays_by_arrival = _find_delays(frames, sent)
    delays = [delay for _, delay in delays_by_arrival]
    return Delay(method, percentile(delays, 0.5), percentile(delays, 0.95), len(delays)) if delays else Delay()


def delays_over_time(frames: Sequence[FrameRecord], sent: SentFrames) -> list[tuple[float, float]]:
    """Return when frames arrived and how long after they were sent, both in seconds, by marks or else by cuts.

    Never more than some hundred, evenly chosen.
    """
    _, delays = _find_delays(frames, sent)
    step = -(-len(delays) // _MAX_SHOWN) or 1
    return delays[::step]


def _find_delays(frames: Sequence[FrameRecord], sent: SentFrames) -> tuple[DelayMethod, list[tuple[float, float]]]:
    """Return how delays can be seen in this video, and each as (arrival, delay)."""
    by_marks = _delays_by_marks(frames, sent)
    if by_marks and len(by_marks) >= _MIN_MARKED_SHARE * len(frames):
        return DelayMethod.MARKS, by_marks
    return DelayMethod.SCENE_CUTS, _delays_by_cuts(frames, sent)


def _delays_by_marks(frames: Sequence[FrameRecord], sent: SentFrames) -> list[tuple[float, float]]:
    # Only the first time that a frame is shown counts: a picture that stands still is not a slow one.
    first_arrivals: dict[int, float] = {}
    for frame in frames:
        if frame.mark is not None:
            first_arrivals.setdefault(frame.mark, frame.arrived)
    delays = ((arrived, arrived - sent.times.get(mark, math.inf)) for mark, arrived in first_arrivals.items())
    # A mark that arrives before it was sent is somebody's invention.
    return [(arrived, delay) for arrived, delay in delays if delay >= 0]


def _delays_by_cuts(frames: Sequence[FrameRecord], sent: SentFrames) -> list[tuple[float, float]]:
    """Return the delay of each visible cut since the last one in the same direction that was sent."""
    cuts = sent.form.cuts(max(sent.times, default=-1) + 1)
    # Of a cut whose frame was skipped, nobody knows when it would have been visible.
    sent_cuts = {
        direction: sorted(
            sent.times[number] for number, bright in cuts.items() if bright is direction and number in sent.times
        )
        for direction in (True, False)
    }
    delays = []
    for arrived, direction in visible_cuts(frames):
        times = sent_cuts[direction]
        place = bisect.bisect_right(times, arrived)
        if place and arrived - times[place - 1] <= _MAX_CUT_DELAY_S:
            delays.append((arrived, arrived - times[place - 1]))
    return delays


def visible_cuts(frames: Sequence[FrameRecord]) -> list[tuple[float, bool]]:
    """Return when the picture changed between dark and bright, and True for dark to bright.

    A model may take several frames for it: the change counts when it is half done.
    """
    if not frames:
        return []
    levels = [frame.brightness for frame in frames]
    low, high = percentile(levels, _EDGE_SHARE), percentile(levels, 1 - _EDGE_SHARE)
    if high - low < _MIN_SCENE_CONTRAST:
        return []
    # Between a third and two thirds nothing is decided, so that noise around the middle makes no cuts.
    middle, dark, bright = (low + high) / 2, low + (high - low) / 3, high - (high - low) / 3
    cuts: list[tuple[float, bool]] = []
    is_bright: bool | None = None
    crossed: float | None = None
    for frame, level in zip(frames, levels, strict=True):
        if is_bright is not None and (level > middle) is not is_bright:
            crossed = frame.arrived if crossed is None else crossed
        else:
            crossed = None
        if dark <= level <= bright or (level > bright) is is_bright:
            continue
        if is_bright is not None:
            cuts.append((frame.arrived if crossed is None else crossed, not is_bright))
        is_bright, crossed = level > bright, None
    return cuts
