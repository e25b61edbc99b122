"""Decode streams of strangers: whatever they contain, the stream ends with a problem, and the daemon goes on."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import signal
from pathlib import Path

import av
import pytest
from PIL import Image

from jobtester.video.decoder import STREAM_PROBLEMS, DecodedVideo, VideoDecoder
from jobtester.video.decoder_options import DecoderLimits, DecoderOptions
from jobtester.video.frame_record import strip_size
from jobtester.video.pattern import VideoFormat
from tests.harness.video import SMALL, add_sound, encode, repack, split_flv


async def decode(
    chunks: list[bytes], *, form: VideoFormat = SMALL, container: str = "", stills: int = 0, **limits: float
) -> DecodedVideo:
    """Return what is decoded of chunks that arrive at 0, 1, 2 … seconds."""
    options = DecoderOptions(form, container, stills, DecoderLimits(**limits))  # type: ignore[arg-type]
    async with VideoDecoder(options) as decoder:
        for second, chunk in enumerate(chunks):
            await decoder.feed(chunk, float(second))
        return await decoder.finish()


def count_open_files() -> int:
    """Return how many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("container", ["mpegts", "flv"])
async def test_each_frame_has_the_arrival_of_its_last_byte(container: str) -> None:
    """A frame counts as arrived with the bytes that complete it, not with those that make the demuxer return it."""
    parts = encode(SMALL, 60)
    if container == "flv":
        parts = split_flv(repack(b"".join(parts), "flv"))
    decoded = await decode(parts, container=container)
    assert decoded.problem is None
    header = parts.index(next(part for part in parts if len(part) > 1000)) if container == "flv" else 0
    assert [frame.arrived for frame in decoded.frames] == [header + number for number in range(60)]
    assert [frame.mark for frame in decoded.frames] == list(range(60))


async def test_a_frame_in_two_pieces_arrives_with_the_second() -> None:
    """A frame whose last half comes later has the later time."""
    first, second, third, *rest = encode(SMALL, 30)
    decoded = await decode([first, second[:188], second[188:] + third, *rest])
    assert [frame.arrived for frame in decoded.frames[:3]] == [0.0, 2.0, 2.0]


async def test_concatenated_segments_of_different_streams_are_one_video() -> None:
    """A reader of trickle gets segments that know nothing of each other; even a new size is no problem."""
    other = VideoFormat(192, 160, 24)
    decoded = await decode([*encode(SMALL, 24), *encode(other, 24), *encode(SMALL, 24)])
    assert decoded.problem is None
    assert len(decoded.frames) == 72
    assert {(frame.width, frame.height) for frame in decoded.frames} == {(128, 128), (192, 160)}


@pytest.mark.parametrize("container", ["mpegts", "flv"])
async def test_sound_is_passed_over(container: str) -> None:
    """Sound beside the video changes nothing, and is not decoded."""
    content = add_sound(b"".join(encode(SMALL, 48)), container)
    decoded = await decode([content])
    assert decoded.problem is None
    assert [frame.mark for frame in decoded.frames] == list(range(48))


async def test_sound_may_begin_later() -> None:
    """A segment may have sound where those before had none."""
    silent = b"".join(encode(SMALL, 24))
    decoded = await decode([silent, add_sound(silent, "mpegts"), silent])
    assert decoded.problem is None
    assert len(decoded.frames) == 72


async def test_one_frame_is_a_video() -> None:
    """The shortest stream is decoded, although the decoder would like to see more of it before."""
    decoded = await decode(encode(SMALL, 1))
    assert [frame.mark for frame in decoded.frames] == [0]
    assert decoded.frames[0].is_keyframe


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "no_video"),
        (b"<html>502 Bad Gateway</html>", "undecodable"),
        (b"\x47" + bytes(100_000), "undecodable"),
        (b"FLV\x01\x01\0\0\0\x09\0\0\0\0", "undecodable"),
        (random.Random(1).randbytes(100_000), "undecodable"),
        (b"\x47" + random.Random(2).randbytes(100_000), "undecodable"),
        (b"FLV\x01\x05\0\0\0\x09\0\0\0\0" + random.Random(3).randbytes(100_000), "undecodable"),
    ],
    ids=["nothing", "page", "zeros", "header", "noise", "noise-mpegts", "noise-flv"],
)
async def test_what_is_no_video_is_a_problem_of_the_stream(content: bytes, code: str) -> None:
    """No bytes of a stranger end in anything but a problem with a plain message."""
    decoded = await decode([content])
    assert decoded.problem is not None
    assert decoded.problem.code == code
    assert decoded.problem.message.isprintable()
    assert decoded.frames == ()


async def test_other_codecs_are_not_decoded() -> None:
    """Each decoder is a risk, and live video is H.264: MPEG-2 is refused before it is decoded."""
    out = io.BytesIO()
    with av.open(out, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=24)
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for _ in range(48):
            container.mux(stream.encode(av.VideoFrame(128, 128, "yuv420p")))
        container.mux(stream.encode())
    decoded = await decode([out.getvalue()])
    assert decoded.problem is not None
    assert decoded.problem.code == "unsupported"


@pytest.mark.parametrize("beginning", [[], encode(SMALL, 24)], ids=["at-once", "later"])
async def test_huge_pictures_are_not_decoded(beginning: list[bytes]) -> None:
    """An 8K picture ends the stream before its memory is needed, also when the stream begins with a small one."""
    huge = VideoFormat(4096, 4096, 24)
    decoded = await decode([*beginning, *encode(huge, 2)], max_pixels=1280 * 720)
    assert decoded.problem is not None or decoded.damaged
    assert len(decoded.frames) == (24 if beginning else 0)
    assert all(frame.width == 128 for frame in decoded.frames)


async def test_memory_is_limited() -> None:
    """A stream that needs more memory than granted is too heavy, and the process does not get it."""
    decoded = await decode(encode(VideoFormat(4096, 4096, 24), 2), max_pixels=2**26, memory_bytes=20 * 2**20)
    assert decoded.problem is not None
    assert decoded.problem.code in ("too_heavy", "undecodable", "no_video")
    assert decoded.frames == ()


async def test_more_frames_than_expected_end_the_stream() -> None:
    """Ten thousand frames a second are cut off at the limit, and the frames until then count."""
    decoded = await decode(encode(SMALL, 300), max_frames=100)
    assert decoded.problem is not None
    assert decoded.problem.code == "too_many_frames"
    assert len(decoded.frames) == 100


async def test_processor_time_is_limited() -> None:
    """A stream that takes longer to decode than granted is too heavy."""
    content = encode(VideoFormat(1024, 1024, 24), 48)
    decoded = await decode(content * 200, cpu_s=1.0)
    assert decoded.problem is not None
    assert decoded.problem.code == "too_heavy"
    assert 0 < len(decoded.frames) < 48 * 200


async def test_a_stopped_decoder_is_given_up() -> None:
    """A process that does nothing any more is killed after a while, whether it is fed or asked for the end."""
    parts = encode(SMALL, 24)
    for count in (24, 40 * 24):
        async with VideoDecoder(DecoderOptions(SMALL, limits=DecoderLimits(stall_s=0.3))) as decoder:
            await decoder.feed(b"".join(parts), 0.0)
            process = decoder._process
            assert process is not None
            os.kill(process.pid, signal.SIGSTOP)
            for _ in range(count):
                await decoder.feed(b"".join(parts), 1.0)
            decoded = await decoder.finish()
        assert decoded.problem is not None
        assert decoded.problem.code == "stuck"
        assert process.returncode == -signal.SIGKILL


async def test_a_crashed_decoder_is_a_problem_of_its_stream() -> None:
    """A process that dies, as by a defect of a decoder, is reported; what it decoded before counts."""
    async with VideoDecoder(DecoderOptions(SMALL)) as decoder:
        await decoder.feed(b"".join(encode(SMALL, 48)), 0.0)
        assert await decoder.wait_for_frames(10)
        assert decoder._process is not None
        os.kill(decoder._process.pid, signal.SIGSEGV)
        assert not await decoder.wait_for_frames(1000)
        await decoder.feed(b"x" * 1_000_000, 1.0)
        decoded = await decoder.finish()
    assert decoded.problem is not None
    assert decoded.problem.code == "crashed"
    assert "SIGSEGV" in decoded.problem.message
    assert len(decoded.frames) >= 10


async def test_leaving_early_ends_the_process() -> None:
    """A decoder that nobody finished leaves no process and no file behind."""

    async def leave() -> int:
        async with VideoDecoder(DecoderOptions(SMALL)) as decoder:
            await decoder.feed(b"".join(encode(SMALL, 24)), 0.0)
            assert decoder._process is not None
            return decoder._process.pid

    await leave()
    before = count_open_files()
    for _ in range(3):
        pid = await leave()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            pytest.fail("the decoder still runs")
    assert count_open_files() == before


@pytest.mark.parametrize("container", ["mpegts", "flv"])
async def test_damaged_streams_never_raise(container: str) -> None:
    """Random damage leads to fewer frames or a problem, and to nothing else; no frame is invented."""
    dice = random.Random(7)
    content = b"".join(encode(SMALL, 48))
    content = repack(content, "flv") if container == "flv" else content

    async def damage_and_decode() -> None:
        damaged = bytearray(content)
        for _ in range(dice.choice((1, 10, 100, 1000))):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        start, end = sorted(dice.sample(range(len(damaged)), 2))
        cut = bytes(damaged[:start] + damaged[end:]) if dice.random() < 0.5 else bytes(damaged)
        decoded = await decode([cut], container=container, stills=3, cpu_s=20)
        assert len(decoded.frames) <= 60
        assert decoded.problem is None or decoded.problem.code in STREAM_PROBLEMS
        assert all(frame.mark is None or frame.mark < 48 for frame in decoded.frames)

    for _ in range(10):
        await asyncio.gather(damage_and_decode(), damage_and_decode())


async def test_stills_show_faults() -> None:
    """A gap and a picture that stands still are shown, beside the frames chosen evenly."""
    parts = encode(SMALL, 48)
    options = DecoderOptions(SMALL, "mpegts", stills=6)
    async with VideoDecoder(options) as decoder:
        for number, part in enumerate(parts):
            await decoder.feed(part, number / 24 + (5 if number >= 30 else 0))
        decoded = await decoder.finish()
    assert [(still.index, still.why) for still in decoded.stills if still.why not in ("evenly", "strip")] == [
        (29, "gap"),
        (30, "gap"),
    ]
    (strip,) = [still for still in decoded.stills if still.why == "strip"]
    assert Image.open(io.BytesIO(strip.jpeg)).size == strip_size(6, SMALL.width, SMALL.height)
    evenly = [still.index for still in decoded.stills if still.why == "evenly"]
    assert len(evenly) == 6
    assert evenly[0] == 0
    assert evenly[-1] >= 40
