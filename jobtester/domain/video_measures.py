"""Video measures: what the frames of a received video show, as counts, seconds and shares."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DelayMethod(StrEnum):
    """How the delay from input to output was measured."""

    MARKS = "marks"
    SCENE_CUTS = "scene_cuts"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class OutputTiming:
    """When frames arrived.

    `first_frame_s` counts from the start call, None without a frame. `longest_gap_s` and the stalls count from the
    first frame to the end of the measurement, so that a video that ends early has a gap at its end. `output_fps` leaves
    out the first second of a video of more than two: what a gateway held back comes in it at once.
    `longest_pts_gap_s` is the largest step between the times that the stream itself gives its frames.
    """

    frames: int
    first_frame_s: float | None
    output_s: float
    output_fps: float
    longest_gap_s: float
    stalls_over_1s: int
    stalls_over_10s: int
    longest_pts_gap_s: float | None


@dataclass(frozen=True, slots=True)
class InputTiming:
    """How well the tester itself kept time.

    `late` frames were more than one frame behind the clock; `skipped` ones were not sent at all, because their time
    had passed. `fps` counts what was sent over the time that it took, `expected_fps` what was asked for. `seconds` is
    how long the video is that was sent, and with it how long the output should be.
    """

    frames: int
    late: int
    skipped: int
    fps: float
    expected_fps: float
    seconds: float = 0.0

    @property
    def late_share(self) -> float:
        """Return the share of frames that were late or skipped, 0 to 1."""
        total = self.frames + self.skipped
        return (self.late + self.skipped) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Delay:
    """The delay from sending a frame to receiving what was made of it; percentiles are None without samples.

    Delays by scene cut are known only up to twice the length of a scene, 4 s.
    """

    method: DelayMethod = DelayMethod.NONE
    p50_s: float | None = None
    p95_s: float | None = None
    samples: int = 0


@dataclass(frozen=True, slots=True)
class PictureMeasures:
    """What the pictures show: shares of all frames from 0 to 1, and the longest run of equal pictures.

    `frozen_frames` is the length of that run and `frozen_s` its time, up to the first frame that differs; both are 0
    if no two successive pictures are equal. `repeated_share` is the share of frames that show the same as the frame
    before them, `input_share` of those that show what was sent.
    """

    width: int
    height: int
    black_share: float
    frozen_frames: int
    frozen_s: float
    input_share: float
    distinct_marks: int
    repeated_share: float = 0.0


@dataclass(frozen=True, slots=True)
class VideoMeasures:
    """All that was measured of one video.

    `reactions_s` has one entry for each change of parameters, in order: seconds until the picture changed, None if it
    did not.
    """

    output: OutputTiming
    input: InputTiming
    delay: Delay
    picture: PictureMeasures
    reactions_s: tuple[float | None, ...] = ()
