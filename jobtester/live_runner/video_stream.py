"""Run one live video stream through the app of a live runner: send it in one channel, watch what another returns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import orjson

from jobtester.domain.orchestrators import is_same_origin, is_usable_url
from jobtester.domain.untrusted_text import clean_name
from jobtester.errors import JobTesterError
from jobtester.pipelines.video_rules import STREAM_END_S
from jobtester.video.byte_stream import ReceiverTooSlowError, VideoInputError
from jobtester.video.decoder import DecodedVideo, VideoDecoder
from jobtester.video.decoder_options import DecoderLimits, DecoderOptions
from jobtester.video.frame_schedule import SentFrames
from jobtester.video.pattern import VideoFormat
from jobtester.video.segments import SegmentStream
from jobtester.video.trickle import ChannelEnd, OpenRequest
from jobtester.video.trickle_reader import ChannelReader, Gap, ReaderLimits
from jobtester.video.trickle_writer import ChannelWriter, WriterOptions
from jobtester.video.video_input import VideoInput

_CLOSE_S = STREAM_END_S / 3  # the output ends so soon after its input at the latest
_STILLS = 6


class UnusableChannelsError(JobTesterError):
    """The app's answer names no channels of the orchestrator."""


class ForeignChannelsError(UnusableChannelsError):
    """The app's answer names a channel at another host or port, to which nothing is sent."""


@dataclass(frozen=True, slots=True)
class VideoChannels:
    """Where an app takes a video, and where it returns it."""

    input_url: str
    output_url: str

    @classmethod
    def from_answer(cls, body: bytes, service_uri: str) -> Self:
        """Read an app's answer, which names the channels as `in` and `out`.

        UnusableChannelsError if it does not; ForeignChannelsError if they are not at the orchestrator's own host and
        port.
        """
        try:
            values = orjson.loads(body)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise UnusableChannelsError("The app's answer is not a JSON object.")
        urls = []
        for name in ("in", "out"):
            url = clean_name(values.get(name)).rstrip("/")
            if not url or not is_usable_url(url):
                raise UnusableChannelsError(f"The app's answer has no usable URL of a channel as {name!r}.")
            if not is_same_origin(url, service_uri):
                raise ForeignChannelsError(f"The app names a channel at another host or port: {url}")
            urls.append(url)
        if urls[0] == urls[1]:
            raise UnusableChannelsError("The app names the same channel for input and output.")
        return cls(*urls)


@dataclass(frozen=True, slots=True)
class RunnerStreamPlan:
    """What to send, how long to wait for the first frame, and how long to watch from then on."""

    form: VideoFormat
    start_limit_s: float
    duration_s: float

    @property
    def longest_s(self) -> float:
        """Return how long the stream runs at most, its end included."""
        return self.start_limit_s + self.duration_s + STREAM_END_S


@dataclass(frozen=True, slots=True)
class OutputChannel:
    """What was read of the output's channel. `end` says why it came to its end, None if the tester ended it.

    `longest_feed_s` is how long the tester's own decoder kept it waiting at most.
    """

    end: ChannelEnd | None = None
    received_bytes: int = 0
    empty_segments: int = 0
    gaps: Sequence[Gap] = ()
    longest_feed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunnerStreamRecording:
    """All that was seen of a stream; times are monotonic.

    `written` says why the input's channel came to its end, None if the tester ended it. `ended_early_at` is when one of
    the two ended before its time. `input_problem` is what failed in the tester itself.
    """

    started: float
    watched_until: float
    sent: SentFrames
    decoded: DecodedVideo
    written: ChannelEnd | None
    output: OutputChannel
    dropped_segments: Sequence[int] = ()
    ended_early_at: float | None = None
    input_problem: str = ""

    @property
    def first_frame_at(self) -> float | None:
        """Return when the first frame arrived, None if none did."""
        return self.decoded.frames[0].arrived if self.decoded.frames else None


class RunnerStream:
    """One stream from its first frame to its end; run() once. `open_request` is that of the live runners' client."""

    def __init__(self, plan: RunnerStreamPlan, channels: VideoChannels, open_request: OpenRequest) -> None:
        self._plan = plan
        options = WriterOptions(max_s=plan.longest_s)
        self._writer = ChannelWriter(open_request, channels.input_url, options)
        # The output has no segment before its input has one: nothing is missed by starting with the very first.
        self._reader = ChannelReader(open_request, channels.output_url, 0, ReaderLimits(max_s=plan.longest_s))
        self._problem = ""
        self._longest_feed_s = 0.0

    async def run(self) -> RunnerStreamRecording:
        """Run the stream to its end. Never raises for what the network does."""
        form, loop = self._plan.form, asyncio.get_running_loop()
        limits = DecoderLimits.for_video(form, self._plan.longest_s)
        async with VideoDecoder(DecoderOptions(form, "mpegts", _STILLS, limits)) as decoder:
            started = loop.time()
            async with VideoInput.as_segments(form) as video:
                writing = asyncio.create_task(self._write(video.output), name="video to a live runner")
                reading = asyncio.create_task(self._read(decoder), name="video of a live runner")
                try:
                    ended_early_at = await self._watch(decoder, {writing, reading})
                    watched_until = loop.time()
                    video.stop()
                    # The writer closes the channel after its last segment, by which the app knows the end.
                    await asyncio.wait({writing}, timeout=_CLOSE_S)
                    await asyncio.wait({reading}, timeout=_CLOSE_S)
                finally:
                    writing.cancel()
                    reading.cancel()
                    results = await asyncio.gather(writing, reading, return_exceptions=True)
                sent = video.sent
            for result in results:
                if isinstance(result, Exception):
                    raise result
            return RunnerStreamRecording(
                started=started,
                watched_until=watched_until,
                sent=sent,
                decoded=await decoder.finish(),
                written=self._writer.end,
                output=OutputChannel(
                    end=self._reader.end,
                    received_bytes=self._reader.received,
                    empty_segments=self._reader.empty,
                    gaps=tuple(self._reader.gaps),
                    longest_feed_s=self._longest_feed_s,
                ),
                dropped_segments=tuple(self._writer.dropped),
                ended_early_at=ended_early_at,
                input_problem=self._problem,
            )

    async def _watch(self, decoder: VideoDecoder, work: set[asyncio.Task[None]]) -> float | None:
        """Wait until the stream's time is over; return when it ended before that, None if it did not."""
        loop = asyncio.get_running_loop()
        first = asyncio.create_task(self._wait_for_first_frame(decoder), name="first frame")
        try:
            done, _ = await asyncio.wait(
                {first, *work}, timeout=self._plan.start_limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done & work and first in done:
                end = decoder.frames[0].arrived + self._plan.duration_s
                done, _ = await asyncio.wait(
                    work, timeout=max(0.0, end - loop.time()), return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        return loop.time() if done & work else None

    @staticmethod
    async def _wait_for_first_frame(decoder: VideoDecoder) -> None:
        if not await decoder.wait_for_frames(1):
            # Decoding is over without a frame. The stream is watched on: how it ends is told by its channels.
            await asyncio.Event().wait()

    async def _write(self, segments: SegmentStream) -> None:
        try:
            await self._writer.write(segment.content async for segment in segments)
        except VideoInputError as error:
            self._problem = str(error)
        except ReceiverTooSlowError:
            self._writer.end = ChannelEnd("stalled", "the orchestrator took the input more slowly than it was made")

    async def _read(self, decoder: VideoDecoder) -> None:
        async with self._reader as reader:
            async for piece in reader:
                began = time.monotonic()
                await decoder.feed(piece.data, piece.arrived)
                self._longest_feed_s = max(self._longest_feed_s, time.monotonic() - began)
