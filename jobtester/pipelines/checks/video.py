"""`video`: the answer names an H.264 video of the asked size and length in which something moves."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from jobtester.pipelines.checks import media
from jobtester.pipelines.checks.image import FLAT
from jobtester.pipelines.checks.sample import Expectation, Sample, Wrong

_SMALL = (64, 64)
_STILL = 4  # of 255: what compression alone changes in a reduced picture stays below this (2 was seen)
_DEFAULT_FPS = 7.0
_MAX_SIDE = 4096


@dataclass(frozen=True, slots=True)
class Params:
    """`path` leads to the video, `frames` is how many it should have, within a fifth more or less."""

    path: str = "images"
    frames: int = 25

    def __post_init__(self) -> None:
        """Refuse values that no video can meet."""
        if not 2 <= self.frames <= 500:
            raise ValueError("frames is between 2 and 500")


def urls(answer: Any, params: Params) -> list[str]:
    """Give the video's address."""
    return media.urls(answer, params.path)


def prepare() -> None:
    """Load the decoders."""
    import av  # noqa: F401
    from PIL import ImageChops, ImageStat  # noqa: F401


def check(sample: Sample, params: Params) -> None:
    """Look at the video. Raises Wrong for the first thing that is not right."""
    entry = media.entries(sample.answer, params.path)[0]
    content = media.content(sample, entry, params.path)
    expected = sample.expectation
    frames, seconds = decode(content, limit=2 * params.frames, size=expected.asked_size)
    least, most = int(params.frames * 0.8), int(params.frames * 1.2) + 1
    if not least <= len(frames) <= most:
        shown = f"more than {most}" if len(frames) > most else str(len(frames))
        raise Wrong("frames", f"the video has {shown} frames, about {params.frames} expected")
    _check_duration(seconds, len(frames), expected)
    _check_movement(frames)


def decode(content: bytes, *, limit: int, size: tuple[int, int] | None = None) -> tuple[list[Any], float]:
    """Decode at most `limit` frames, each brought to a small grey picture; give them and the duration in seconds."""
    import av

    if content[4:8] != b"ftyp":
        raise Wrong("not_a_video", f"the file is no MP4: it begins with {content[:12]!r}")
    with (
        media.decoding("video", content),
        av.open(io.BytesIO(content), "r", format="mp4", metadata_errors="ignore") as container,
    ):
        if not container.streams.video:
            raise Wrong("no_stream", "the file has no video stream")
        stream = container.streams.video[0]
        codec = stream.codec_context
        if codec.name != "h264":
            raise Wrong("codec", f"the video is {codec.name}, not H.264")
        if size is not None and (codec.width, codec.height) != size:
            raise Wrong("size", f"the video is {codec.width}×{codec.height}, not {size[0]}×{size[1]}")
        if not (0 < codec.width <= _MAX_SIDE and 0 < codec.height <= _MAX_SIDE):
            raise Wrong("too_large", f"the video claims to be {codec.width}×{codec.height}")
        codec.thread_count = 1
        frames: list[Any] = []
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise Wrong("undecodable", f"frame {len(frames) + 1} of the video is damaged")
            frames.append(_small(frame))
            if len(frames) >= limit:
                break
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    return frames, seconds


def _small(frame: Any) -> Any:
    if frame.width > _MAX_SIDE or frame.height > _MAX_SIDE:
        raise Wrong("too_large", f"a frame is {frame.width}×{frame.height}")
    return frame.reformat(width=_SMALL[0], height=_SMALL[1], format="gray").to_image()


def _check_duration(seconds: float, frames: int, expected: Expectation) -> None:
    fps = expected.number("fps") or _DEFAULT_FPS
    right = frames / fps
    if abs(seconds - right) > max(0.5, right * 0.2):
        raise Wrong(
            "duration", f"the video takes {seconds:.2f} s, {right:.2f} s expected for {frames} frames at {fps:g}/s"
        )


def _check_movement(frames: list[Any]) -> None:
    from PIL import ImageChops, ImageStat

    if all(max(ImageStat.Stat(frame).stddev) < FLAT for frame in frames):
        raise Wrong("flat", "every frame is one flat colour")
    first = frames[0]
    changes = (ImageStat.Stat(ImageChops.difference(first, other)).extrema for other in frames[1:])
    if all(high < _STILL for extrema in changes for _, high in extrema):
        raise Wrong("still", "every frame shows the same")
