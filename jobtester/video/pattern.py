"""The pattern: a moving picture of the tester's own, with its frame number as marks and a scene cut every two seconds.

Marks measure the delay where the picture comes back as it is. A model paints its own picture and destroys them; the
cuts between a dark and a bright scene then remain visible. Stripes move in every frame, so that a picture that stands
still is noticed. The whole repeats after a dark and a bright scene.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobtester.video.marks import BLACK, GRID_ROWS, MAX_NUMBER, ROWS, WHITE, encode_mark

SCENE_S = 2.0
MIN_SIDE = 32
MAX_SIDE = 4096
_STRIPE_PERIODS = 2  # stripes side by side
_STRIPE_PASSES = 5  # periods that they move while the pattern repeats once
_CONTRAST = 80
_DARK = 30
_BRIGHT = 145
_COLORS = ((112, 148), (148, 112))  # of the dark and of the bright scene


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """The size in pixels, both sides even, and the rate of a video."""

    width: int = 512
    height: int = 512
    fps: int = 24

    def __post_init__(self) -> None:
        for side in (self.width, self.height):
            if side % 2 or not MIN_SIDE <= side <= MAX_SIDE:
                raise ValueError(f"width and height are even numbers from {MIN_SIDE} to {MAX_SIDE}")
        if not 1 <= self.fps <= 120:
            raise ValueError("fps is between 1 and 120")

    @property
    def scene_frames(self) -> int:
        """Return how many frames each scene has."""
        return max(1, round(SCENE_S * self.fps))

    def is_bright(self, number: int) -> bool:
        """Return True if a frame belongs to a bright scene."""
        return number // self.scene_frames % 2 == 1

    def cuts(self, count: int) -> dict[int, bool]:
        """Return the first frame of each scene among the first `count` frames; True for dark to bright."""
        return {number: self.is_bright(number) for number in range(self.scene_frames, count, self.scene_frames)}


class Pattern:
    """Draws the pattern for one format. What repeats is drawn once."""

    def __init__(self, form: VideoFormat) -> None:
        self._form = form
        width, height = form.width, form.height
        self._mark_rows = [height * (row + 1) // GRID_ROWS - height * row // GRID_ROWS for row in range(ROWS)]
        self._columns = [width * (column + 1) // 16 - width * column // 16 for column in range(16)]
        body = height - sum(self._mark_rows)
        self._upper, self._lower = body // 2, body - body // 2
        self._waves = [_triangle_wave(2 * width, width / _STRIPE_PERIODS, base) for base in (_DARK, _BRIGHT)]
        chroma = (width // 2) * (height // 2)
        self._chroma = [(bytes([blue]) * chroma, bytes([red]) * chroma) for blue, red in _COLORS]

    def draw(self, number: int) -> tuple[bytes, bytes, bytes]:
        """Return the three planes (brightness, blue, red) of a frame in YUV 4:2:0. Numbers start again at 65,536."""
        return (self.draw_brightness(number), *self._chroma[self._form.is_bright(number)])

    def draw_brightness(self, number: int) -> bytes:
        """Return the brightness of a frame, row by row without gaps."""
        width = self._form.width
        wave = self._waves[self._form.is_bright(number)]
        cycle = 2 * self._form.scene_frames
        period = width / _STRIPE_PERIODS
        shift = int(period * _STRIPE_PASSES * (number % cycle) / cycle % period)
        back = int(period - shift) % int(period)
        marks = b"".join(
            b"".join(bytes([WHITE if bit else BLACK]) * count for bit, count in zip(bits, self._columns, strict=True))
            * rows
            for bits, rows in zip(encode_mark(number & MAX_NUMBER), self._mark_rows, strict=True)
        )
        return marks + wave[shift : shift + width] * self._upper + wave[back : back + width] * self._lower


def _triangle_wave(length: int, period: float, base: int) -> bytes:
    return bytes(base + int(_CONTRAST * abs(2 * (x / period % 1) - 1)) for x in range(length))
