"""Measure how long the picture takes to react to changed parameters. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from itertools import pairwise

from jobtester.domain.percentiles import percentile
from jobtester.video.fingerprints import distance
from jobtester.video.frame_record import FrameRecord
from jobtester.video.pattern import SCENE_S

_BASELINE_S = 2 * SCENE_S  # after a dark and a bright scene the pattern repeats, and what a model makes of it
_MAX_BASELINE_FRAMES = 120
_MIN_DISTANCE = 8.0  # of 255 on average
_USUAL_FACTOR = 1.5
_CONFIRMING_FRAMES = 3  # a single odd frame is a glitch, not a reaction


def measure_reaction(frames: Sequence[FrameRecord], updated: float, until: float) -> float | None:
    """Return the seconds from an update to the first of several frames unlike all before it, None without such frames.

    `frames` are in the order in which they arrived. None also if too few frames came before the update to compare.
    """
    times = [frame.arrived for frame in frames]
    start, middle, end = (bisect.bisect_right(times, moment) for moment in (updated - _BASELINE_S, updated, until))
    before = frames[start:middle]
    step = -(-len(before) // _MAX_BASELINE_FRAMES) or 1
    baseline = [frame.fingerprint for frame in before[::step]]
    if len(baseline) < _CONFIRMING_FRAMES:
        return None
    # How unlike each other neighbors are says how unlike the next frame may be without any reaction.
    usual = percentile([distance(a, b) for a, b in pairwise(baseline)], 0.5)
    limit = max(_MIN_DISTANCE, _USUAL_FACTOR * usual)
    first: float | None = None
    count = 0
    like = 0
    for frame in frames[middle:end]:
        # The next frame mostly looks like the one after the one that this frame looked like: that one is tried first.
        order = (*range(like + 1, len(baseline)), *range(like + 1))
        match = next((place for place in order if distance(frame.fingerprint, baseline[place]) <= limit), None)
        if match is not None:
            like, first, count = match, None, 0
            continue
        first = frame.arrived if first is None else first
        count += 1
        if count >= _CONFIRMING_FRAMES:
            return first - updated
    return None
