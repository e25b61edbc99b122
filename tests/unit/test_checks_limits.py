"""Answers made to eat time or memory end in a plain finding, within two seconds and 256 MiB, really measured."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobtester.checks import json_field
from jobtester.checks.base import Check, Expectation, FetchedFile
from jobtester.checks.evaluation import CheckTask
from jobtester.checks.worker import Worker, WorkerLostError
from jobtester.domain.reasons import Fault, Finding
from tests.unit.corpus import media_factory as make
from tests.unit.corpus.answers import images, masks, request

MAX_CPU_S = 2.0
_LARGE_BYTES = 8 * 2**20
MAX_BYTES = 256 * 2**20  # that a check may take, with the worker itself and its decoders, on any Python
BIG = 0xFFFFFFFF


def animation(form: str, frames: int, side: int = 64) -> bytes:
    """Return a file of so many pictures, each different."""
    out = io.BytesIO()
    pictures = [Image.new("RGB", (side, side), (index % 256, index // 256, 99)) for index in range(frames)]
    quick: dict[str, Any] = {"optimize": False} if form == "GIF" else {"method": 0}
    pictures[0].save(out, form, save_all=True, append_images=pictures[1:], duration=20, **quick)
    return out.getvalue()


def png(width: int, height: int, *, depth: int = 8, color: int = 2, extra: bytes = b"", interlaced: int = 0) -> bytes:
    """Write a PNG of zeros whose header is honest; `extra` are chunks before its data."""
    row = width * {0: 1, 2: 3, 6: 4}[color] * depth // 8 + 1
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(row)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), extra, chunk(b"IDAT", packed), chunk(b"IEND", b"")))


def chunk(name: bytes, content: bytes) -> bytes:
    """Write a chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def patch_box(content: bytes, box: bytes, at: int, new: bytes) -> bytes:
    """Change a field of an MP4's box, counted from behind its name, in all boxes of the name."""
    damaged = bytearray(content)
    start = content.find(box)
    assert start > 0
    while start > 0:
        damaged[start + 4 + at : start + 4 + at + len(new)] = new
        start = content.find(box, start + 4)
    return bytes(damaged)


def wav(*, channels: int = 1, rate: int = 44_100, align: int = 2, bits: int = 16, claimed: int = BIG) -> bytes:
    """Write a WAV whose header claims what it likes, with a thousand samples."""
    form = struct.pack("<HHIIHH", 1, channels, rate, (rate * align) & BIG, align, bits)
    data = bytes(range(250)) * 8
    return (
        b"RIFF" + struct.pack("<I", BIG) + b"WAVE" + b"fmt " + struct.pack("<I", 16) + form
        + b"data" + struct.pack("<I", claimed) + data
    )  # fmt: skip


def jpeg_header(width: int, height: int) -> bytes:
    """Return a JPEG whose header claims another size."""
    content = bytearray(make.picture(64, 64, "JPEG"))
    at = next(content.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in content)
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


TINY: Callable[[], bytes] = lambda: make.video(64, 64, 6)  # noqa: E731 - made only where the test runs
MEDIA: dict[str, tuple[str, Callable[[], bytes]]] = {
    "GIF of 5000 frames": ("image", lambda: animation("GIF", 5000, 16)),
    "APNG of 3000 frames": ("image", lambda: animation("PNG", 3000, 16)),
    "WebP of 2000 frames": ("image", lambda: animation("WEBP", 2000, 16)),
    "GIF of 65535²": ("image", lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(64)),
    "JPEG of 65500²": ("image", lambda: jpeg_header(65_500, 65_500)),
    "WebP of 16383²": ("image", lambda: b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f\xff\xff\xff\xff\x07" + bytes(30)),
    "PNG of 2³¹ a side": ("image", lambda: make.huge_png(2**31 - 1, 2**31 - 1)),
    "PNG of no size": ("image", lambda: make.huge_png(0, 0)),
    "PNG of one line, 10⁹ long": ("image", lambda: make.huge_png(10**9, 1)),
    "PNG bomb": ("image", lambda: make.png_bomb(10_000)),
    "PNG of the largest size": ("image", lambda: png(4096, 4096)),
    "the same with transparency": ("image", lambda: png(4096, 4096, color=6)),
    "the same of 16 bits": ("image", lambda: png(4096, 4096, depth=16, color=2)),
    "the same interlaced": ("image", lambda: png(4096, 4096, interlaced=1)),
    "PNG with a text bomb": (
        "image",
        lambda: png(64, 64, extra=chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))),
    ),
    "PNG with a profile bomb": (
        "image",
        lambda: png(64, 64, extra=chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100_000_000), 9))),
    ),
    "PNG of 100000 chunks": ("image", lambda: png(64, 64, extra=chunk(b"tEXt", b"a\0b") * 100_000)),
    "MP4 for ever": ("video", lambda: patch_box(TINY(), b"mvhd", 12, struct.pack(">II", 1, BIG))),
    "MP4 without time": ("video", lambda: patch_box(TINY(), b"mdhd", 12, struct.pack(">II", 0, BIG))),
    "MP4 of 2³² samples": ("video", lambda: patch_box(TINY(), b"stsz", 8, struct.pack(">I", BIG))),
    "MP4 of 2³² equal samples": ("video", lambda: patch_box(TINY(), b"stsz", 4, struct.pack(">II", 1, BIG))),
    "MP4 of 2³² times": ("video", lambda: patch_box(TINY(), b"stts", 4, struct.pack(">III", 1, BIG, 1))),
    "MP4 of 2³² chunks": ("video", lambda: patch_box(TINY(), b"stco", 4, struct.pack(">I", BIG))),
    "MP4 of 65535²": ("video", lambda: patch_box(TINY(), b"avc1", 24, struct.pack(">HH", 65535, 65535))),
    "MP4 in a box without end": ("video", lambda: TINY()[:32] + struct.pack(">I", 1) + b"moov" + b"\x7f" + bytes(99)),
    "MP4 of 50000 boxes in each other": (
        "video",
        lambda: TINY()[:32] + b"".join(struct.pack(">I", BIG - 8 * n) + b"moov" for n in range(50_000)),
    ),
    "MP4 of 3000 frames": ("video", lambda: make.video(64, 64, 3000, 60)),
    "WAV that claims 4 GB": ("audio", wav),
    "WAV of 65535 channels": ("audio", lambda: wav(channels=65535, align=65535)),
    "WAV without a rate": ("audio", lambda: wav(rate=0)),
    "WAV of 4 GHz": ("audio", lambda: wav(rate=BIG)),
    "WAV without width": ("audio", lambda: wav(align=0, bits=0)),
    "WAV of ten minutes": ("audio", lambda: make.sound(600.0, rate=16_000)),
    "FLAC of 2³⁶ samples": ("audio", lambda: b"fLaC\x80\0\0\x22" + b"\x10\0" * 2 + bytes(6) + b"\xff" * 24 + bytes(99)),
    "MP3 with a tag of 256 MB": ("audio", lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + make.sound(0.2, "mp3")),
}  # fmt: skip

DIGITS = "9" * 1_000_000
ANSWERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "100000 lists in each other": ("llm", lambda: b"[" * 100_000 + b"]" * 100_000),
    "100000 tables in each other": ("llm", lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "nested below the answer": ("text-to-image", lambda: b'{"images":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a number of a million digits": ("text-to-image", lambda: json.dumps(images()).replace("42", DIGITS).encode()),
    "a fraction of them": ("text-to-image", lambda: json.dumps(images()).replace("42", f"4.{DIGITS}").encode()),
    "a number beyond all": ("openai-text-embeddings", lambda: b'{"data":[{"embedding":[1e400,0.5]}]}'),
    "NaN": ("openai-text-embeddings", lambda: b'{"data":[{"embedding":[NaN,0.5]}]}'),
    "infinity": ("audio-to-text", lambda: b'{"text":"x","chunks":[{"text":"x","timestamp":[0,-Infinity]}]}'),
    "100000 times the same key": ("image-to-text", lambda: b"{" + b'"text":"no",' * 100_000 + b'"text":""}'),
    "half a character": ("image-to-text", lambda: b'{"text":"\\ud800 \\udfff \\ud83d"}'),
    "half a character for an address": ("text-to-image", lambda: b'{"images":[{"url":"/\\ud800","seed":42}]}'),
    "ten megabytes of text": ("image-to-text", lambda: b'{"text":"' + b"ball " * 2_000_000 + b'"}'),
    "a million vectors": ("openai-text-embeddings", lambda: b'{"data":[' + b"{}," * 1_000_000 + b"{}]}"),
    "a vector of millions": ("openai-text-embeddings", lambda: b'{"embedding":[' + b"0.5," * 3_000_000 + b"1]}"),
    "a transcript of one letter": ("audio-to-text", lambda: b'{"text":"' + b"a " * 5_000_000 + b'"}'),
    "masks of a million lists": (
        "segment-anything-2",
        lambda: json.dumps(masks(masks="[" + "[]," * 1_000_000 + "[]]")).encode(),
    ),
    "masks nested": ("segment-anything-2", lambda: json.dumps(masks(masks="[" * 1_000_000)).encode()),
    "masks of one long number": ("segment-anything-2", lambda: json.dumps(masks(scores=f"[0.{DIGITS}]")).encode()),
    "a bomb in base64": (
        "openai-image-generation",
        lambda: json.dumps({"data": [{"b64_json": base64.b64encode(make.png_bomb(10_000)).decode()}]}).encode(),
    ),
    "base64 of nothing": ("openai-image-generation", lambda: b'{"data":[{"b64_json":"' + b"A" * 16_000_000 + b'"}]}'),
    "twenty megabytes of blanks": ("llm", lambda: b" " * 20_000_000 + b"{}"),
}  # fmt: skip


def start_worker() -> Worker:
    """Start a worker and make it load its decoders, which does not count."""
    worker = Worker.start(wall_s=200)
    for kind, content in (("image", make.picture(64, 64)), ("video", TINY()), ("audio", make.sound(0.2))):
        expectation = Expectation((Check("json", json_field.Params(path="url", is_=kind)),))  # type: ignore[arg-type]
        worker.evaluate(
            CheckTask(expectation, b'{"url": "/x"}', files={"/x": FetchedFile("/x", 200, content)}), cpu_s=60
        )
    return worker


class MeasuredWorker:
    """A worker whose memory and processor time are measured."""

    def __init__(self) -> None:
        self.worker = start_worker()
        self.peak = 0

    def evaluate(self, task: CheckTask) -> list[Finding]:
        """Evaluate a task; one that takes too long ends the worker, as it should."""
        if len(task.body) > _LARGE_BYTES:  # what earlier answers left in the allocator counts against a large one
            self.worker.stop()
            self.worker = start_worker()
        with self._measuring():
            before = self._cpu_s()
            try:
                report = self.worker.evaluate(task, cpu_s=MAX_CPU_S)
            except WorkerLostError as error:
                if not error.exceeded_cpu:
                    raise
                self.worker = start_worker()
                return [Finding("any", "too_slow")]
            assert self._cpu_s() - before < MAX_CPU_S + 0.2
        return list(report.findings)

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self.worker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:13])) / 100

    @contextlib.contextmanager
    def _measuring(self) -> Iterator[None]:
        """Read the worker's memory again and again; the system's own high-water mark misses nothing in between."""
        over = threading.Event()
        status = Path(f"/proc/{self.worker.process.pid}/status")

        def watch() -> None:
            while True:
                last = over.is_set()
                with contextlib.suppress(OSError, KeyError):  # the process may have just ended
                    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
                    mark = lines.get("VmHWM") or lines["VmRSS"]
                    self.peak = max(self.peak, int(mark.split()[0]) * 1024)
                if last:
                    return
                time.sleep(0.005)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="module")
def measured_worker() -> Iterator[MeasuredWorker]:
    """Yield one worker for all; another takes its place if it is killed for taking too long."""
    measured_worker = MeasuredWorker()
    yield measured_worker
    measured_worker.worker.stop()


@pytest.mark.parametrize("name", MEDIA)
def test_files_are_checked_within_bounds(measured_worker: MeasuredWorker, name: str) -> None:
    """Headers that claim the world, bombs, and thousands of frames, for pipelines that expect no size in particular."""
    kind, make_content = MEDIA[name]
    expectation = Expectation((Check("json", json_field.Params(path="url", is_=kind)),))  # type: ignore[arg-type]
    task = CheckTask(expectation, b'{"url": "/x"}', files={"/x": FetchedFile("/x", 200, make_content())})
    assert_contained(measured_worker, task)


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_checked_within_bounds(measured_worker: MeasuredWorker, name: str) -> None:
    """Depth, length, endless numbers and halves of characters: wrong answers, and nothing worse."""
    pipeline, make_body = ANSWERS[name]
    findings = assert_contained(measured_worker, CheckTask(request(pipeline).expectation, make_body(), files={}))
    assert not all(finding.passed for finding in findings)


def assert_contained(measured_worker: MeasuredWorker, task: CheckTask) -> list[Finding]:
    """Evaluate a task within the bounds; nothing about it is the tester's fault."""
    findings = measured_worker.evaluate(task)
    assert findings
    assert all(finding.fault is Fault.ORCHESTRATOR for finding in findings), findings
    assert all(len(finding.message) < 1000 and " at 0x" not in finding.message for finding in findings), findings
    assert 10 * 2**20 < measured_worker.peak < MAX_BYTES
    return findings
