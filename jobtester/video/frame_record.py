"""Frame records: what is kept of a decoded frame, a few hundred bytes, and how a decoder process reports it."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Any, Self

from jobtester.video.marks import MAX_NUMBER

FINGERPRINT_SIDE = 16
FINGERPRINT_BYTES = FINGERPRINT_SIDE**2 * 3 // 2  # brightness, and both colors at half the resolution
MAX_STILL_BYTES = 64 * 1024
STRIP_COLUMNS = 3
STRIP_CELL = 160  # pixels
_JPEG_START = b"\xff\xd8\xff"
_MAX_PTS_S = 1e9


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One decoded frame.

    `arrived` is the monotonic time at which the bytes arrived that completed it, `pts_s` its time in the stream.
    `mark` is the number of the frame of ours that it shows, None if it shows no valid mark; `is_input` is True if it
    also looks like that frame. `brightness` is the mean (0–255), `fingerprint` the picture at 16×16 in YUV 4:2:0.
    """

    index: int
    arrived: float
    pts_s: float | None
    mark: int | None
    is_input: bool
    brightness: float
    fingerprint: bytes
    is_keyframe: bool
    width: int
    height: int

    def as_message(self) -> list[Any]:
        """Return the record as values that JSON can carry."""
        return [
            self.index,
            self.arrived,
            self.pts_s,
            self.mark,
            self.is_input,
            self.brightness,
            base64.b64encode(self.fingerprint).decode(),
            self.is_keyframe,
            self.width,
            self.height,
        ]

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """Return the record in a message. Raises ValueError for anything else, which a hijacked decoder may send."""
        try:
            index, arrived, pts_s, mark, is_input, brightness, fingerprint, is_keyframe, width, height = message
            record = cls(
                int(index),
                float(arrived),
                None if pts_s is None else float(pts_s),
                None if mark is None else int(mark),
                bool(is_input),
                float(brightness),
                base64.b64decode(fingerprint, validate=True),
                bool(is_keyframe),
                int(width),
                int(height),
            )
        except (TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise ValueError("not a frame record") from error
        is_plausible = (
            len(record.fingerprint) == FINGERPRINT_BYTES
            and math.isfinite(record.arrived)
            and (record.pts_s is None or abs(record.pts_s) < _MAX_PTS_S)
            and (record.mark is None or 0 <= record.mark <= MAX_NUMBER)
            and 0 <= record.brightness <= 255
            and min(record.index, record.width, record.height) >= 0
        )
        if not is_plausible:
            raise ValueError("not a plausible frame record")
        return record


@dataclass(frozen=True, slots=True)
class Still:
    """A received frame as a small JPEG. `why` is `evenly`, or the fault next to it: `gap`, `black` or `frozen`.

    The `strip` is a picture of all that were chosen evenly.
    """

    index: int
    arrived: float
    why: str
    jpeg: bytes

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """Return the still in a message. Raises ValueError for anything else."""
        try:
            index, arrived, why, jpeg = message
            still = cls(int(index), float(arrived), str(why), base64.b64decode(jpeg, validate=True))
        except (TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise ValueError("not a still") from error
        # Browsers show it, so it is at least what it claims to be, and the reason is one of ours.
        if not still.jpeg.startswith(_JPEG_START) or len(still.jpeg) > MAX_STILL_BYTES:
            raise ValueError("not a small JPEG")
        if still.why not in ("evenly", "gap", "black", "frozen", "strip") or not math.isfinite(still.arrived):
            raise ValueError("not a plausible still")
        return still


def strip_size(count: int, width: int, height: int) -> tuple[int, int]:
    """Return the width and height in pixels of a strip of so many stills of a video of this size."""
    columns = min(count, STRIP_COLUMNS)
    return columns * STRIP_CELL, -(-count // STRIP_COLUMNS) * cell_height(width, height)


def cell_height(width: int, height: int) -> int:
    """Return the height in pixels of one still in a strip."""
    return max(1, min(2 * STRIP_CELL, round(STRIP_CELL * height / max(1, width))))
