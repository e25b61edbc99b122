"""Frame records and stills cross from a process that a stream may have hijacked: only plausible ones are taken."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.video.decoder import VideoDecoder
from jobtester.video.decoder_options import DecoderLimits, DecoderOptions
from jobtester.video.frame_record import FINGERPRINT_BYTES, FrameRecord, Still
from jobtester.video.pattern import VideoFormat

RECORD = FrameRecord(3, 12.5, 0.125, 7, True, 99.5, bytes(FINGERPRINT_BYTES), True, 512, 512)
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0 and so on").decode()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def test_a_record_survives_the_way() -> None:
    """What a decoder process reports is what the daemon gets."""
    assert FrameRecord.from_message(orjson.loads(orjson.dumps(RECORD.as_message()))) == RECORD


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, -1), (1, float("nan")), (1, "soon"), (2, 1e300), (3, 70_000), (3, -1), (5, 256), (5, float("nan")),
        (6, "AAAA"), (6, "ä"), (6, None), (8, -5), (9, [1]),
    ],
)  # fmt: skip
def test_implausible_records_are_refused(place: int, value: Any) -> None:
    """A value that no decoder would report makes the whole record invalid."""
    message = RECORD.as_message()
    message[place] = value
    with pytest.raises(ValueError, match="record"):
        FrameRecord.from_message(message)


@pytest.mark.parametrize(
    "message",
    [
        [1, 2.0, "evenly", base64.b64encode(b"<svg onload=alert(1)>").decode()],
        [1, 2.0, "evenly", base64.b64encode(b"\xff\xd8\xff" + bytes(100_000)).decode()],
        [1, 2.0, "<b>", JPEG],
        [1, float("inf"), "gap", JPEG],
        [1, 2.0, "gap"],
    ],
)
def test_stills_are_small_jpegs(message: list[Any]) -> None:
    """What a page would show is a JPEG within bounds, or nothing."""
    with pytest.raises(ValueError, match=r"still|JPEG"):
        Still.from_message(message)


@given(JSON)
def test_any_other_json_is_refused(message: Any) -> None:
    """A decoder process that sends anything else is not believed, and raises nothing but ValueError."""
    for kind in (FrameRecord, Still):
        with pytest.raises(ValueError, match=r".*"):
            kind.from_message(message)


@pytest.mark.parametrize(
    "message",
    [
        {}, [], None, {"frame": []}, {"end": ["other", "x"], "damaged": 0}, {"end": None},
        {"still": [0, 1.0, "gap", JPEG]}, {"end": None, "damaged": "many"},
    ],
)  # fmt: skip
async def test_reports_of_a_hijacked_decoder_are_refused(message: Any) -> None:
    """Lines that are no report, or more stills than were asked for, are refused."""
    with pytest.raises(ValueError, match=r".*"):
        VideoDecoder(DecoderOptions(VideoFormat()))._accept(message)


def test_options_survive_the_way() -> None:
    """A decoder process gets the options that it was started with."""
    options = DecoderOptions(
        VideoFormat(640, 480, 30), "flv", 5, DecoderLimits.for_video(VideoFormat(640, 480, 30), 60)
    )
    assert DecoderOptions.from_argument(options.as_argument()) == options
    with pytest.raises(ValueError, match="container"):
        DecoderOptions(VideoFormat(), "avi")
