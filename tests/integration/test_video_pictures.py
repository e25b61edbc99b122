"""Judge pictures that really went through an encoder: frozen, black, painted by a model, changed by parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobtester.domain.video_measures import DelayMethod, VideoMeasures
from jobtester.video.decoder import VideoDecoder
from jobtester.video.decoder_options import DecoderOptions
from jobtester.video.encoder import Planes
from jobtester.video.frame_schedule import SentFrames
from jobtester.video.meter import Measurement, measure_video
from jobtester.video.pattern import Pattern, VideoFormat
from tests.harness.video import encode

FORM = VideoFormat(256, 256, 24)
SECONDS = 9
DELAY_S = 0.7
PATTERN = Pattern(FORM)


async def measure(draw: Callable[[int], Planes], *updates: float) -> VideoMeasures:
    """Return the measures of an output that shows `draw` of each frame DELAY_S after the frame was sent."""
    count = SECONDS * FORM.fps
    async with VideoDecoder(DecoderOptions(FORM, "mpegts")) as decoder:
        for number, part in enumerate(encode(FORM, count, draw=draw)):
            await decoder.feed(part, number / FORM.fps + DELAY_S)
        decoded = await decoder.finish()
    assert decoded.problem is None
    assert len(decoded.frames) == count
    sent = SentFrames(FORM, 0.0, {number: number / FORM.fps for number in range(count)}, 0, 0)
    return measure_video(decoded.frames, sent, Measurement(0.0, SECONDS + DELAY_S, updates))


def paint(number: int, *, style: int = 0) -> Planes:
    """Paint what a model would make of a frame: less contrast, other colors, no readable marks."""
    brightness, blue, red = PATTERN.draw(number)
    top = len(brightness) // 8
    dimmed = (brightness[top : 2 * top] + brightness[top:]).translate(bytes(60 + level // 2 for level in range(256)))
    if style:
        return dimmed.translate(bytes(level * 2 % 220 for level in range(256))), red, blue
    return dimmed, blue, red


async def test_a_painted_video_is_measured_by_scene_cuts() -> None:
    """What a model paints has no marks and is not the input; its delay is that of the scene cuts."""
    measures = await measure(paint)
    assert measures.picture.distinct_marks == 0
    assert measures.picture.input_share == 0
    assert measures.picture.repeated_share < 0.02
    assert measures.delay.method is DelayMethod.SCENE_CUTS
    assert measures.delay.p50_s == pytest.approx(DELAY_S, abs=1 / 24)
    assert measures.delay.p95_s == pytest.approx(DELAY_S, abs=1 / 24)
    assert measures.delay.samples == 4


async def test_an_echo_is_measured_by_marks() -> None:
    """An output that shows the input is recognized as such, and its delay is exact."""
    measures = await measure(PATTERN.draw)
    assert measures.picture.input_share == 1
    assert measures.delay.method is DelayMethod.MARKS
    assert measures.delay.p95_s == pytest.approx(DELAY_S)


@pytest.mark.parametrize("draw", [PATTERN.draw, paint], ids=["echo", "painted"])
async def test_a_frozen_video_is_recognized(draw: Callable[[int], Planes]) -> None:
    """A picture that stands still for three seconds is found, although the encoder's noise differs each time."""
    measures = await measure(lambda number: draw(50 if 50 <= number < 122 else number))
    assert measures.picture.frozen_frames == pytest.approx(72, abs=2)
    assert measures.picture.frozen_s == pytest.approx(3, abs=0.1)


async def test_a_black_video_is_recognized() -> None:
    """Black frames are counted, and dark scenes are not black."""
    flat = bytes([128]) * (128 * 128)
    measures = await measure(
        lambda number: (bytes([16]) * 256 * 256, flat, flat) if number % 48 < 12 else paint(number)
    )
    assert measures.picture.black_share == 60 / 216


async def test_a_change_of_style_is_a_reaction() -> None:
    """The reaction to an update is the time until the picture changes, and no update has none of its own."""
    changed = 6.0
    measures = await measure(lambda number: paint(number, style=number / FORM.fps + DELAY_S >= changed + 0.5), changed)
    (reaction,) = measures.reactions_s
    assert reaction == pytest.approx(0.5, abs=2 / 24)
    assert (await measure(paint, changed)).reactions_s == (None,)
    assert (await measure(PATTERN.draw, changed)).reactions_s == (None,)
