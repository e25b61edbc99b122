"""What an answer brought is encoded again and small, whatever it is, and never decides how the answer is judged."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import AsyncIterator

import orjson
import pytest
import pytest_asyncio
from PIL import Image

from jobtester.checks import audio, image, video
from jobtester.checks.base import Check, Expectation, FetchedFile
from jobtester.checks.checker import AnswerChecker, CheckedAnswer
from tests.unit.corpus import media_factory as make

MAX_BYTES = 64 * 1024


@pytest_asyncio.fixture
async def checker() -> AsyncIterator[AnswerChecker]:
    """Yield a checker with time enough on a slow machine."""
    answer_checker = AnswerChecker(workers=1, cpu_s=20, wall_s=200)
    yield answer_checker
    await answer_checker.close()


async def check(checker: AnswerChecker, check: Check, content: bytes, *, max_bytes: int = MAX_BYTES) -> CheckedAnswer:
    """Check an answer that carries a file."""

    async def refuse(url: str) -> FetchedFile:
        raise AssertionError(url)

    data = "data:x/y;base64," + base64.b64encode(content).decode()
    body = orjson.dumps({"images": [{"url": data}], "audio": {"url": data}})
    return await checker.check(Expectation((check,)), body, fetch=refuse, max_kept_bytes=max_bytes)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(make.picture(512, 256), ""), (make.picture(512, 256, "WEBP", "RGBA"), ""), (make.picture(900, 450), "size")],
    ids=["right", "transparent", "of the wrong size"],
)
async def test_a_picture_becomes_a_small_jpeg(checker: AnswerChecker, content: bytes, problem: str) -> None:
    """A picture is kept as a JPEG of at most 320 pixels, also where its size is what is wrong with it."""
    answer = await check(checker, Check("image", image.Params(size="512x256")), content)
    assert [finding.problem for finding in answer.findings] == [problem]
    preview = answer.received
    assert preview is not None
    picture = Image.open(io.BytesIO(preview.content))
    assert (preview.content_type, picture.format, picture.size) == ("image/jpeg", "JPEG", (320, 160))
    assert preview.original_size == len(content)
    assert preview.width == 2 * preview.height
    assert content not in preview.content


async def test_a_sound_becomes_a_short_clip(checker: AnswerChecker) -> None:
    """Of a sound the first six seconds are kept, at 8 kHz; how long it lasts is known."""
    answer = await check(checker, Check("audio", audio.Params()), make.sound(9.0))
    preview = answer.received
    assert preview is not None
    with wave.open(io.BytesIO(preview.content)) as clip:
        assert (clip.getframerate(), clip.getsampwidth(), clip.getnframes()) == (8000, 1, 48_000)
        samples = clip.readframes(48_000)
    assert max(samples) - min(samples) > 60  # it is the tone, not silence
    assert preview.seconds == pytest.approx(9.0, abs=0.1)


async def test_of_a_video_its_first_frame_is_kept(checker: AnswerChecker) -> None:
    """A video is kept as the picture that it begins with."""
    answer = await check(checker, Check("video", video.Params()), make.video())
    assert answer.received is not None
    assert Image.open(io.BytesIO(answer.received.content)).size == (320, 180)
    assert (answer.received.width, answer.received.height) == (1024, 576)


@pytest.mark.parametrize(
    "content", [b"<script>alert(1)</script>", make.png_bomb(10_000), make.picture(512, 512)[:900]],
    ids=["a page", "a bomb", "half a picture"],
)  # fmt: skip
async def test_what_cannot_be_decoded_is_not_kept(checker: AnswerChecker, content: bytes) -> None:
    """Bytes that are no picture are judged as before and kept in no form."""
    answer = await check(checker, Check("image", image.Params(size="any")), content)
    assert not answer.findings[0].passed
    assert answer.received is None
    good = await check(checker, Check("image", image.Params(size="any")), make.picture(64, 64))
    assert good.received is not None  # the worker goes on


async def test_nothing_is_larger_than_allowed(checker: AnswerChecker) -> None:
    """What does not fit is made smaller or left out, and without a size nothing is kept."""
    for max_bytes in (3000, 200, 0):
        preview = (
            await check(checker, Check("image", image.Params(size="any")), make.picture(512, 512), max_bytes=max_bytes)
        ).received
        assert preview is None or len(preview.content) <= max_bytes
        assert preview is not None or max_bytes < 3000
    clip = (await check(checker, Check("audio", audio.Params()), make.sound(3.0), max_bytes=8044)).received
    assert clip is not None
    assert len(clip.content) == 8044
