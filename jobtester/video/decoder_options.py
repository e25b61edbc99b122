"""Decoder options: what a decoder process has to know, and the limits for an untrusted stream."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Self

import orjson

from jobtester.video.pattern import VideoFormat

_REFERENCE_PIXELS = 512 * 512
_FULL_HD_PIXELS = 1920 * 1088
_CPU_S_PER_FRAME = 0.02  # five times what a frame of 512×512 takes on a slow core
_START_CPU_S = 10.0


@dataclass(frozen=True, slots=True)
class DecoderLimits:
    """Limits of one stream: frames, pixels of one frame, memory beyond the process's own, and processor time.

    `stall_s` is how long the decoder may take no bytes, or give no end after the last ones.
    """

    max_frames: int = 10_000
    max_pixels: int = 2048 * 2048
    memory_bytes: int = 256 * 2**20
    cpu_s: float = 120.0
    stall_s: float = 20.0

    @classmethod
    def for_video(cls, form: VideoFormat, seconds: float) -> Self:
        """Return generous limits for a video of that length: thrice the frames, four times the pixels or Full HD."""
        max_frames = 3 * math.ceil(form.fps * seconds) + 100
        pixels = max(form.width * form.height, _REFERENCE_PIXELS)
        return cls(
            max_frames=max_frames,
            max_pixels=max(4 * pixels, _FULL_HD_PIXELS),
            memory_bytes=256 * 2**20 * max(1, round(pixels / (1280 * 720))),
            cpu_s=_START_CPU_S + max_frames * _CPU_S_PER_FRAME * pixels / _REFERENCE_PIXELS,
        )


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """The format of the input, whose pattern marks refer to, the container of the output and the number of stills.

    `container` is `mpegts`, `flv` or empty, which means whichever of the two it is.
    """

    form: VideoFormat
    container: str = ""
    stills: int = 0
    limits: DecoderLimits = field(default_factory=DecoderLimits)

    def __post_init__(self) -> None:
        if self.container not in ("", "mpegts", "flv"):
            raise ValueError("container is mpegts or flv")

    def as_argument(self) -> str:
        """Return the options as one argument of a command."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def from_argument(cls, argument: str) -> Self:
        """Return the options in an argument."""
        values = orjson.loads(argument)
        return cls(
            form=VideoFormat(**values["form"]),
            container=values["container"],
            stills=values["stills"],
            limits=DecoderLimits(**values["limits"]),
        )
