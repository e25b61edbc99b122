"""Measure what pictures and video cost beside a tick: making a kept file and storing it, and checking live frames."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import orjson
from PIL import Image

from benchmarks.recording import make_result
from benchmarks.rows import Row
from benchmarks.tester import LoopLag
from jobtester.checks.base import Check, Expectation
from jobtester.checks.evaluation import CheckTask
from jobtester.checks.image import Params
from jobtester.checks.worker import Worker
from jobtester.domain.result_details import ReceivedFile
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.store.database import Database
from jobtester.store.results import Results
from jobtester.video.arriving_stream import ArrivingStream
from jobtester.video.decoder_options import DecoderOptions
from jobtester.video.decoder_protocol import END, encode_header
from jobtester.video.encoder import Encoder
from jobtester.video.frame_reader import FrameReader
from jobtester.video.frame_schedule import SentFrames
from jobtester.video.meter import Measurement, measure_video
from jobtester.video.pattern import VideoFormat
from jobtester.video.stills import StillCollector

_SIDE = 1024
_FILES = 40
_RESULTS = 1_500
_IN_FLIGHT = 64
_MAX_BYTES = 64 * 1024
_FORM = VideoFormat(512, 512, 24)
_FRAMES = 240


async def measure() -> list[Row]:
    """Measure kept files, then the frames of a live video."""
    task = await asyncio.to_thread(_make_task)
    async with LoopLag() as lag:
        file, evaluated_s, made_s = await asyncio.to_thread(_make_files, task)
    plain_s, _ = await _store(None)
    with_file_s, stored_lag_s = await _store(file)
    decoded_s, checked_s, judged_s = await asyncio.to_thread(_measure_frames)
    return [
        Row.with_bar(f"picture {_SIDE}×{_SIDE}: checks, in a worker, median", evaluated_s * 1e3, "ms"),
        Row.with_bar("kept file of that picture: made in the worker, median", made_s * 1e3, "ms"),
        Row.with_bar("longest block of the event loop meanwhile", lag.longest * 1e3, "ms", at_most=20),
        Row.with_bar(f"kept file of {len(file.content) / 1e3:.0f} kB: stored", (with_file_s - plain_s) * 1e3, "ms"),
        Row.with_bar("longest block of the event loop meanwhile", stored_lag_s * 1e3, "ms", at_most=20),
        Row.with_bar("live video 512×512: decoding a frame, in its process", decoded_s * 1e3, "ms"),
        Row.with_bar("live video: mark, fingerprint and stills of a frame, there", checked_s * 1e3, "ms"),
        Row.with_bar("live video: judging, for each frame, in a thread", judged_s * 1e3, "ms"),
    ]


def _make_task() -> CheckTask:
    side = _SIDE // 8
    picture = Image.frombytes("RGB", (side, side), os.urandom(3 * side**2)).resize((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return CheckTask(Expectation((Check("image", Params()),)), orjson.dumps({"images": [{"url": url}]}))


def _make_files(task: CheckTask) -> tuple[ReceivedFile, float, float]:
    """Return a kept file, and how many seconds a worker takes to check its picture and to make it, in the median."""
    evaluated, made = [], []
    worker = Worker.start()
    try:
        for _ in range(_FILES):
            began = time.perf_counter()
            report = worker.evaluate(task, cpu_s=5)
            evaluated.append(time.perf_counter() - began)
            assert all(finding.passed for finding in report.findings), report
            began = time.perf_counter()
            received = worker.preview(max_bytes=_MAX_BYTES, cpu_s=5)
            made.append(time.perf_counter() - began)
    finally:
        worker.stop()
    assert received is not None
    return received, statistics.median(evaluated), statistics.median(made)


async def _store(file: ReceivedFile | None) -> tuple[float, float]:
    """Return the seconds for each stored result, each with this file, and the longest block of the event loop."""
    results = [_with_file(make_result(number), file) for number in range(_RESULTS)]
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "bench.db")
        await database.open()
        try:
            store = Results(database)
            async with LoopLag() as lag:
                began = time.perf_counter()
                for start in range(0, _RESULTS, _IN_FLIGHT):
                    await asyncio.gather(
                        *(
                            store.record(result, Stat.from_result(result, "FRA"))
                            for result in results[start : start + _IN_FLIGHT]
                        )
                    )
                seconds = time.perf_counter() - began
        finally:
            await database.close()
    return seconds / _RESULTS, lag.longest


def _with_file(result: Result, file: ReceivedFile | None) -> Result:
    return replace(result, details=replace(result.details, received=file))


def _measure_frames() -> tuple[float, float, float]:
    """Return the seconds for each frame: to decode it, to look at it, and to judge it in the end."""
    content = _encode(_FRAMES)
    began = time.process_time()
    with av.open(io.BytesIO(b"".join(content)), "r", format="mpegts") as container:
        container.streams.video[0].codec_context.thread_count = 1
        count = sum(1 for _ in container.decode(video=0))
    decoded_s = time.process_time() - began
    arriving = io.BytesIO(
        b"".join(encode_header(number / _FORM.fps, len(data)) + data for number, data in enumerate(content)) + END
    )
    collector = StillCollector(6)
    records = []
    began = time.process_time()
    for record, frame in FrameReader(ArrivingStream(arriving), DecoderOptions(_FORM, "mpegts", stills=6)).frames():
        collector.add(record, frame)
        records.append(record)
    seen_s = time.process_time() - began
    assert len(records) == count == _FRAMES
    began = time.process_time()
    sent = SentFrames(_FORM, 0.0, {number: number / _FORM.fps for number in range(_FRAMES)}, late=0, skipped=0)
    measure_video(records, sent, Measurement(0.0, _FRAMES / _FORM.fps))
    judged_s = time.process_time() - began
    return decoded_s / count, (seen_s - decoded_s) / count, judged_s / count


def _encode(frames: int) -> Sequence[bytes]:
    encoder = Encoder(_FORM, "mpegts")
    return [*(encoder.encode(number)[0] for number in range(frames)), encoder.finish()]
