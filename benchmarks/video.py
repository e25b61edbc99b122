"""Measure live video: frames lost, delay, cost of a stream, four streams at once, and the error of the first frame.

Videos go through a socket that echoes them. Each measurement runs in a process of its own, so that its memory is its
own; decoders are processes anyway.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import runner_video
from benchmarks.processes import run_module
from benchmarks.rows import Row
from jobtester.domain.video_measures import VideoMeasures
from jobtester.logs import configure_logs
from jobtester.video.decoder import VideoDecoder
from jobtester.video.decoder_options import DecoderLimits, DecoderOptions
from jobtester.video.encoder import Encoder
from jobtester.video.meter import Measurement, measure_video
from jobtester.video.pattern import VideoFormat
from jobtester.video.video_input import InputOptions, VideoInput

_FORM = VideoFormat(512, 512, 24)
_SECONDS = 10.0
_BESIDE_S = 120.0
_FIRST_FRAMES = 5
_FIRST_FRAME_S = 0.7
_READ_BYTES = 64 * 1024
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Figures:
    """What streams at the same time cost: cores on average, memory in bytes, of the tester and of its decoders."""

    sent: int
    received: int
    late: int
    delay_p50_s: float
    delay_p95_s: float
    cores: float
    memory: float
    decoder_memory: float


async def measure() -> list[Row]:
    """Measure one stream, four streams, first frames whose time is known, and a stream through a live runner."""
    one, four = await _run(1), await _run(4)
    error_s = await _measure_first_frames()
    return [
        Row.with_bar("video frames received ÷ sent, one stream", one.received / one.sent, at_least=1),
        Row.with_bar("video delay from the encoder through an echo, p50", one.delay_p50_s * 1e3, "ms", at_most=20),
        Row.with_bar("video delay from the encoder through an echo, p95", one.delay_p95_s * 1e3, "ms"),
        Row.with_bar("processor for one video stream, decoder included", one.cores, "cores", at_most=0.5),
        Row.with_bar("memory for one video stream, in the tester", one.memory / _MB, "MB"),
        Row.with_bar("memory for one video stream, its decoder process", one.decoder_memory / _MB, "MB", at_most=150),
        Row.with_bar("video frames received ÷ sent, four streams", four.received / four.sent, at_least=1),
        Row.with_bar("video frames late or skipped, four streams", four.late / four.sent, "share", at_most=0.01),
        Row.with_bar("processor for four video streams, decoders included", four.cores, "cores", at_most=2),
        Row.with_bar("error of the first video frame's time, largest", error_s * 1e3, "ms", at_most=20),
        *await runner_video.measure(),
    ]


async def _run(count: int) -> Figures:
    return Figures(**await run_module("benchmarks.video", str(count)))


async def _measure_streams(count: int) -> Figures:
    before = _read_memory()
    began, cpu_began = time.perf_counter(), _read_cpu()
    async with _echo_server() as port:
        measured = await asyncio.gather(*(_stream(port, _SECONDS) for _ in range(count)))
    wall_s = time.perf_counter() - began
    delays = [measures.delay for measures in measured]
    return Figures(
        sent=sum(measures.input.frames for measures in measured),
        received=sum(measures.picture.distinct_marks for measures in measured),
        late=sum(measures.input.late + measures.input.skipped for measures in measured),
        delay_p50_s=max(delay.p50_s or 0.0 for delay in delays),
        delay_p95_s=max(delay.p95_s or 0.0 for delay in delays),
        cores=(_read_cpu() - cpu_began) / wall_s,
        memory=_read_memory() - before,
        decoder_memory=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    )


@asynccontextmanager
async def stream_beside() -> AsyncIterator[None]:
    """Send a video through an echo and decode it, in this process, until the block ends."""
    async with _echo_server() as port:
        streaming = asyncio.create_task(_stream(port, _BESIDE_S))
        try:
            yield
            assert not streaming.done(), "the stream ended too early"
        finally:
            streaming.cancel()
            await asyncio.wait({streaming})


async def _stream(port: int, seconds: float) -> VideoMeasures:
    loop = asyncio.get_running_loop()
    options = DecoderOptions(_FORM, "mpegts", stills=6, limits=DecoderLimits.for_video(_FORM, seconds))
    async with VideoDecoder(options) as decoder:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        started = loop.time()

        async def receive() -> None:
            while data := await reader.read(_READ_BYTES):
                await decoder.feed(data, loop.time())

        try:
            async with (
                VideoInput.as_segments(_FORM, InputOptions(max_s=seconds)) as video,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(receive())
                async for segment in video.output:
                    async for data in segment.content:
                        writer.write(data)
                        await writer.drain()
                writer.write_eof()
            ended = loop.time()
            decoded = await decoder.finish()
        finally:
            writer.close()
            await writer.wait_closed()
    assert decoded.problem is None, decoded.problem
    return await asyncio.to_thread(measure_video, decoded.frames, video.sent, Measurement(started, ended))


async def _measure_first_frames() -> float:
    """Return the largest error, in seconds, in the time of a first frame that a server sends at a known time."""
    encoder = Encoder(_FORM, "mpegts")
    frames = [encoder.encode(number)[0] for number in range(24)] + [encoder.finish()]
    truths: list[float] = []
    loop = asyncio.get_running_loop()

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(_FIRST_FRAME_S)
        for number, data in enumerate(frames):
            writer.write(data)
            await writer.drain()
            if not number:
                truths.append(loop.time())
            await asyncio.sleep(1 / _FORM.fps)
        writer.close()
        await writer.wait_closed()

    errors: list[float] = []
    async with await asyncio.start_server(send, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(_FIRST_FRAMES):
            async with VideoDecoder(DecoderOptions(_FORM)) as decoder:
                started = loop.time()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                while data := await reader.read(_READ_BYTES):
                    await decoder.feed(data, loop.time())
                decoded = await decoder.finish()
                writer.close()
                await writer.wait_closed()
            sent = VideoInput.as_matroska(_FORM).sent
            output = measure_video(decoded.frames, sent, Measurement(started, loop.time())).output
            assert output.frames == 24
            assert output.first_frame_s is not None
            errors.append(abs(started + output.first_frame_s - truths[-1]))
    return max(errors)


@asynccontextmanager
async def _echo_server() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(echo, "127.0.0.1") as server:
        yield server.sockets[0].getsockname()[1]


def _read_cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _read_memory() -> float:
    """Return the most memory that this process has held, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(lines["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    configure_logs("error", "console")
    print(json.dumps(asdict(asyncio.run(_measure_streams(int(sys.argv[1]))))))
