"""Encode the tester's own video in real time, decode it in a decoder process, and measure it."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise

import pytest

from jobtester.domain.video_measures import DelayMethod
from jobtester.video.byte_stream import ReceiverTooSlowError, VideoInputError
from jobtester.video.decoder import VideoDecoder
from jobtester.video.decoder_options import DecoderLimits, DecoderOptions
from jobtester.video.frame_schedule import SentFrames
from jobtester.video.meter import Measurement, measure_video
from jobtester.video.pattern import VideoFormat
from jobtester.video.segments import SegmentStream
from jobtester.video.video_input import InputOptions, VideoInput
from tests.harness.video import count_frames, repack
from tests.harness.waiting import until

FORM = VideoFormat(512, 512, 24)


def _video_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "video input"]


async def _read_all(segments: SegmentStream) -> None:
    async for segment in segments:
        async for _ in segment.content:
            pass


async def test_every_sent_frame_is_received_through_segments() -> None:
    """Each frame that was sent comes back with its number, next to no delay, and nothing is left behind."""
    options = DecoderOptions(FORM, container="mpegts", limits=DecoderLimits.for_video(FORM, 5))
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with VideoDecoder(options) as decoder, VideoInput.as_segments(FORM, InputOptions(max_s=3)) as video:
        async for segment in video.output:
            async for data in segment.content:
                await decoder.feed(data, loop.time())
        decoded = await decoder.finish()
        sent = video.sent
        process = decoder._process
    assert decoded.problem is None
    assert [frame.mark for frame in decoded.frames] == sorted(sent.times)
    assert all(frame.is_input for frame in decoded.frames)
    measures = measure_video(decoded.frames, sent, Measurement(started, loop.time()))
    assert measures.delay.method is DelayMethod.MARKS
    assert measures.delay.p50_s is not None
    assert measures.delay.p50_s < 0.2
    assert measures.input.frames + measures.input.skipped == 72
    assert measures.picture.black_share == 0
    assert measures.picture.frozen_s < 1
    assert measures.picture.input_share == 1
    assert process is not None
    assert process.returncode == 0
    assert not _video_threads()


async def test_segments_are_streams_of_their_own() -> None:
    """Each segment can be decoded without the others, and has the frames of one second."""
    contents: list[bytes] = []
    async with VideoInput.as_segments(FORM, InputOptions(max_s=2.5)) as video:
        async for segment in video.output:
            assert segment.index == len(contents)
            contents.append(b"".join([data async for data in segment.content]))
    counts = [count_frames(content) for content in contents]
    # On a busy machine frames may be skipped.
    assert sum(counts) == len(video.sent.times)
    assert all(count == 24 for count in counts[:-1])
    assert all(content[:1] == b"\x47" for content in contents)


async def test_a_segment_is_read_while_it_is_written() -> None:
    """The first bytes of a segment can be read long before its last frame exists."""
    async with VideoInput.as_segments(FORM, InputOptions(max_s=3)) as video:
        segment = await anext(aiter(video.output))
        await anext(aiter(segment.content))
        assert len(video.sent.times) < 24


async def test_matroska_survives_repacking_to_flv() -> None:
    """What a gateway makes of the Matroska input, FLV, has every frame that was sent."""
    async with VideoInput.as_matroska(FORM, InputOptions(max_s=2)) as video:
        content = b"".join([data async for data in video.output])
    async with VideoDecoder(DecoderOptions(FORM, stills=4)) as decoder:
        await decoder.feed(repack(content, "flv"), 1.0)
        decoded = await decoder.finish()
    assert decoded.problem is None
    assert [frame.mark for frame in decoded.frames] == sorted(video.sent.times)
    evenly = [still for still in decoded.stills if still.why == "evenly"]
    assert len(evenly) == 4
    assert all(still.jpeg.startswith(b"\xff\xd8") and len(still.jpeg) < 64 * 1024 for still in evenly)


@pytest.mark.parametrize("container", ["as_segments", "as_matroska"])
async def test_stop_ends_the_video_and_its_thread(container: str) -> None:
    """Readers get what was made before stop, and the thread ends."""
    async with getattr(VideoInput, container)(FORM) as video:
        first = await anext(aiter(video.output))
        assert first
        video.stop()
        async for _ in video.output:
            pass
    assert 0 < len(video.sent.times) < 100
    assert not _video_threads()


async def test_leaving_the_context_ends_the_thread() -> None:
    """No thread is left when a reader fails in the middle."""

    async def fail() -> None:
        async with VideoInput.as_segments(FORM) as video:
            await anext(aiter(video.output))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not _video_threads()


async def test_a_receiver_that_reads_nothing_ends_the_video() -> None:
    """Bytes that nobody reads are bounded: the video ends, and says why."""
    options = InputOptions(max_buffered_bytes=20_000)
    async with VideoInput.as_matroska(FORM, options) as video:
        await until(lambda: video.output.is_closed, "the end of the video")
        with pytest.raises(ReceiverTooSlowError):
            await anext(aiter(video.output))
    assert video._buffer.waiting == 0
    assert video._buffer.most < 20_000 + 100_000


async def test_a_tester_that_was_held_up_skips_frames_and_says_so() -> None:
    """After a pause of the whole machine no burst follows: frames are missing, counted, and the rest is on time."""
    offset = 0.0
    options = InputOptions(max_s=6, clock=lambda: time.monotonic() + offset)
    async with VideoInput.as_segments(FORM, options) as video, VideoDecoder(DecoderOptions(FORM)) as decoder:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async for segment in video.output:
            if segment.index == 1:
                offset = 3.0
            async for data in segment.content:
                await decoder.feed(data, loop.time())
        took_s = loop.time() - began
        decoded = await decoder.finish()
    sent = video.sent
    assert sent.skipped >= 70
    assert len(sent.times) + sent.skipped == 144
    assert took_s > 2.5
    assert [frame.mark for frame in decoded.frames] == sorted(sent.times)
    gaps = [later - earlier for earlier, later in pairwise(sorted(sent.times))]
    assert max(gaps) >= 70
    measures = measure_video(decoded.frames, sent, Measurement(began, loop.time()))
    assert measures.input.late_share > 0.4
    assert measures.output.longest_pts_gap_s is not None
    assert measures.output.longest_pts_gap_s > 2.8


async def test_a_defect_of_the_encoder_is_the_testers_own_problem() -> None:
    """Readers learn that the tester failed, the crash is counted, and the thread ends."""
    crashes: list[str] = []
    ticks = iter(range(3))
    options = InputOptions(clock=lambda: float(next(ticks)), count_crash=crashes.append)
    async with VideoInput.as_segments(FORM, options) as video:
        with pytest.raises(VideoInputError, match="internal error of the tester"):
            await _read_all(video.output)
    assert crashes == ["video"]
    assert not _video_threads()


async def test_nothing_is_sent_before_the_start() -> None:
    """A video that was not started reports no frames."""
    sent = VideoInput.as_matroska(FORM).sent
    assert sent == SentFrames(FORM, sent.started, {}, 0, 0)
