"""The simulated video apps of live runners: two channels for a session, and the faults of what comes back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from jobtester.domain.video_measures import VideoMeasures
from jobtester.video.decoder import DecodedVideo, VideoDecoder
from jobtester.video.decoder_options import DecoderLimits, DecoderOptions
from jobtester.video.frame_schedule import SentFrames
from jobtester.video.meter import Measurement, measure_video
from jobtester.video.pattern import VideoFormat
from jobtester.video.trickle import ChannelEnd
from jobtester.video.trickle_reader import ChannelReader, ReaderLimits
from jobtester.video.trickle_writer import ChannelWriter
from jobtester.video.video_input import InputOptions, VideoInput
from tests.harness.video_apps import video_session
from tests.harness.waiting import until

FORM = VideoFormat(192, 192, 24)
VIDEO_S = 5.0


@dataclass(frozen=True, slots=True)
class Stream:
    """What was sent to an app, and what came back."""

    sent: SentFrames
    decoded: DecodedVideo
    measures: VideoMeasures
    written: ChannelEnd
    reader: ChannelReader


async def _stream(fault: str) -> Stream:
    options = DecoderOptions(FORM, container="mpegts", limits=DecoderLimits.for_video(FORM, 30))
    loop = asyncio.get_running_loop()
    async with video_session(fault=fault) as (_, client, urls, _), VideoDecoder(options) as decoder:
        started = loop.time()
        reader = ChannelReader(client.open_request, urls["out"], 0, ReaderLimits(max_s=VIDEO_S + 3))

        async def read() -> None:
            async with reader:
                async for piece in reader:
                    await decoder.feed(piece.data, piece.arrived)

        reading = asyncio.create_task(read())
        async with VideoInput.as_segments(FORM, InputOptions(max_s=VIDEO_S)) as video:
            writer = ChannelWriter(client.open_request, urls["in"])
            written = await writer.write(segment.content async for segment in video.output)
            sent = video.sent
        await reading
        decoded = await decoder.finish()
    measures = await asyncio.to_thread(measure_video, decoded.frames, sent, Measurement(started, loop.time()))
    return Stream(sent, decoded, measures, written, reader)


async def test_the_app_returns_every_frame() -> None:
    """Every frame comes back once, soon, and the output ends with the input."""
    stream = await _stream("")
    assert stream.written.code == "finished"
    assert stream.reader.end is not None
    assert stream.reader.end.code == "closed"
    assert [frame.mark for frame in stream.decoded.frames] == sorted(stream.sent.times)
    assert stream.measures.picture.input_share == 1
    assert stream.measures.delay.p50_s is not None
    assert stream.measures.delay.p50_s < 0.15


async def test_black_pictures() -> None:
    """All frames come back, each of them black."""
    stream = await _stream("video_black")
    assert len(stream.decoded.frames) > 0.8 * len(stream.sent.times)
    assert stream.measures.picture.black_share == 1


async def test_a_frozen_picture() -> None:
    """All frames come back, each like the first."""
    stream = await _stream("video_frozen")
    assert len(stream.decoded.frames) > 0.8 * len(stream.sent.times)
    assert stream.measures.picture.frozen_frames > 0.9 * len(stream.decoded.frames)


async def test_a_slow_app() -> None:
    """About four frames per second come back."""
    stream = await _stream("video_slow")
    assert 2 * VIDEO_S <= len(stream.decoded.frames) <= 5 * VIDEO_S


@pytest.mark.parametrize(("fault", "code"), [("video_mute", "closed"), ("video_empty_segments", "closed")])
async def test_nothing_comes_back(fault: str, code: str) -> None:
    """The app takes the video and returns no byte of one."""
    stream = await _stream(fault)
    assert stream.written.code == "finished"
    assert stream.decoded.frames == ()
    assert stream.reader.received == 0
    assert stream.reader.end is not None
    assert stream.reader.end.code == code
    assert (stream.reader.empty > 2) == (fault == "video_empty_segments")


async def test_an_app_that_dies() -> None:
    """Frames come for two seconds and then no more, while the channel of the output stays open."""
    stream = await _stream("video_dies")
    assert 1.5 * FORM.fps <= len(stream.decoded.frames) <= 3 * FORM.fps
    assert stream.reader.end is not None
    assert stream.reader.end.code == "limit"


async def test_an_app_that_ends_early() -> None:
    """Frames come for two seconds, and the app closes its channels; the writer is told too."""
    stream = await _stream("video_ends_early")
    assert 1.5 * FORM.fps <= len(stream.decoded.frames) <= 3 * FORM.fps
    assert stream.written.code == "closed"
    assert stream.reader.end is not None
    assert stream.reader.end.code == "closed"


async def test_channels_on_another_host() -> None:
    """The app names channels that are not the orchestrator's."""
    async with video_session(fault="video_other_host") as (network, _, urls, _):
        uri = network.orchestrators[0].spec.service_uri
        assert all("/ai/trickle/" in url and not url.startswith(uri) for url in urls.values())


async def test_channels_end_with_their_session() -> None:
    """Stopped by the client, or lost with the runner's health: readers are told that the channel is closed."""
    for is_stopped in (True, False):
        async with video_session() as (network, client, urls, control_url):
            reader = ChannelReader(client.open_request, urls["out"], 0)

            async def read(reader: ChannelReader = reader) -> None:
                async with reader:
                    async for _ in reader:
                        pass

            reading = asyncio.create_task(read())
            if is_stopped:
                assert (await client.post(f"{control_url}/stop", headers={}, timeout_s=5, max_bytes=10))[0] == 204
            else:
                network.service_ports[0].runners[0].set_healthy(False)
            await asyncio.wait_for(reading, 5)
            assert reader.end is not None
            assert reader.end.code in ("closed", "missing")
            await until(lambda: network.service_ports[0].runners[0].slots_in_use == 0, "the slot is free")
