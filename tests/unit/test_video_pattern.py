"""The tester's own picture: marks that survive, a scene cut every two seconds, and movement in every frame."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.video.marks import COLUMNS, MAX_NUMBER, ROWS, decode_mark, encode_mark, read_mark
from jobtester.video.pattern import Pattern, VideoFormat

NUMBERS = st.integers(0, MAX_NUMBER)


@given(NUMBERS, st.integers(165, 255), st.integers(0, 85))
def test_a_mark_is_read_as_it_was_written(number: int, white: int, black: int) -> None:
    """Every number survives, also when the picture has lost contrast."""
    assert decode_mark(tuple(tuple(white if bit else black for bit in row) for row in encode_mark(number))) == number


@given(NUMBERS, st.sets(st.integers(0, ROWS * COLUMNS - 1), min_size=1, max_size=3))
def test_a_misread_mark_is_no_mark(number: int, places: set[int]) -> None:
    """Up to three wrong blocks never make another number."""
    bits = [bit for row in encode_mark(number) for bit in row]
    for place in places:
        bits[place] = not bits[place]
    rows = (tuple(235 if bit else 16 for bit in bits[start : start + COLUMNS]) for start in (0, COLUMNS))
    assert decode_mark(tuple(rows)) is None


@pytest.mark.parametrize("level", [0, 16, 128, 235, 255])
def test_a_flat_picture_has_no_mark(level: int) -> None:
    """Black, gray and white pictures are what broken models make, and must not read as frames of ours."""
    assert read_mark(bytes([level]) * 64 * 64, 64) is None


def test_noise_has_no_mark() -> None:
    """Random pictures have no mark."""
    dice = random.Random(1)
    assert not any(read_mark(dice.randbytes(64 * 64), 64) for _ in range(200))


@given(NUMBERS, st.sampled_from([(512, 512), (64, 64), (1280, 720), (720, 1280), (96, 34), (854, 480)]))
def test_planes_have_the_size_of_the_picture(number: int, size: tuple[int, int]) -> None:
    """Each plane has exactly the pixels of YUV 4:2:0, at any even size."""
    width, height = size
    planes = Pattern(VideoFormat(width, height)).draw(number)
    assert [len(plane) for plane in planes] == [width * height, width * height // 4, width * height // 4]


def test_every_frame_moves_and_carries_its_number() -> None:
    """No two frames in a row are the same outside the marks, also across scene cuts."""
    pattern = Pattern(VideoFormat(64, 64, 24))
    last = b""
    for number in range(200):
        picture = pattern.draw_brightness(number)
        assert read_mark(picture, 64) == number
        assert picture[8 * 64 :] != last
        last = picture[8 * 64 :]


@pytest.mark.parametrize("fps", [1, 8, 24, 30, 60])
def test_scenes_last_two_seconds(fps: int) -> None:
    """Dark and bright scenes alternate every two seconds, and their brightness differs by much."""
    form = VideoFormat(64, 64, fps)
    pattern = Pattern(form)
    assert form.cuts(6 * fps + 1) == {2 * fps: True, 4 * fps: False, 6 * fps: True}
    dark, bright = (sum(pattern.draw_brightness(number)) / 64**2 for number in (2 * fps - 1, 2 * fps))
    assert bright - dark > 80


@pytest.mark.parametrize("values", [(511, 512, 24), (512, 30, 24), (512, 5000, 24), (512, 512, 0), (512, 512, 500)])
def test_impossible_formats_are_refused(values: tuple[int, int, int]) -> None:
    """Odd or extreme sizes and rates are errors of the configuration."""
    with pytest.raises(ValueError, match=r"even numbers|fps"):
        VideoFormat(*values)
