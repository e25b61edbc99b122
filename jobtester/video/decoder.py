"""Decode an untrusted video in a process of its own, within limits, and collect a record of each frame."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import orjson

from jobtester.child_process import child_environment, module_command
from jobtester.domain.untrusted_text import clean_prose
from jobtester.video.decoder_options import DecoderOptions
from jobtester.video.decoder_protocol import END, MAX_CHUNK_BYTES, MAX_LINE_BYTES, encode_header
from jobtester.video.frame_record import FrameRecord, Still

_MAX_MESSAGE_CHARS = 200


@dataclass(frozen=True, slots=True)
class StreamProblem:
    """Why a stream was not decoded to its end.

    `code` is `undecodable`, `no_video`, `unsupported`, `too_large`, `too_many_frames` or `too_heavy` for what is wrong
    with the stream; `stuck`, `crashed` or `not_started` for a decoder process that failed with it.
    """

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class DecodedVideo:
    """All that is left of a video. `problem` is None if it was decoded to its end; frames before a problem count.

    `damaged` counts pieces that the decoder could not read and passed over.
    """

    frames: tuple[FrameRecord, ...]
    stills: tuple[Still, ...] = ()
    problem: StreamProblem | None = None
    damaged: int = 0


STREAM_PROBLEMS = ("undecodable", "no_video", "unsupported", "too_large", "too_many_frames", "too_heavy")


class VideoDecoder:
    """Decodes one video while the context is entered; use it on the event loop.

    Nothing that the stream does raises here: it ends as `problem`. Leaving the context ends the process.
    """

    def __init__(self, options: DecoderOptions) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._frames: list[FrameRecord] = []
        self._stills: list[Still] = []
        self._problem: StreamProblem | None = None
        self._damaged = 0
        self._changed = asyncio.Event()
        self._is_done = False

    @property
    def frames(self) -> Sequence[FrameRecord]:
        """Return the frames that are decoded so far; the list grows."""
        return self._frames

    @property
    def problem(self) -> StreamProblem | None:
        """Return why decoding ended early, None while it goes on."""
        return self._problem

    async def feed(self, data: bytes, arrived: float) -> None:
        """Pass bytes on, which arrived at a monotonic time; waits while the decoder is behind.

        After the end of decoding, bytes are dropped.
        """
        for start in range(0, len(data), MAX_CHUNK_BYTES):
            chunk = data[start : start + MAX_CHUNK_BYTES]
            await self._send(encode_header(arrived, len(chunk)) + chunk)

    async def wait_for_frames(self, count: int) -> bool:
        """Wait until `count` frames are decoded; return False if decoding ends with fewer."""
        while len(self._frames) < count and not self._is_done:
            self._changed.clear()
            await self._changed.wait()
        return len(self._frames) >= count

    async def finish(self) -> DecodedVideo:
        """End the video after what was fed, and return what was in it."""
        await self._send(END)
        if self._reader is not None:
            # After its last byte the decoder has little left to do; the limit holds for each step of that.
            count = -1
            while not self._is_done and count != len(self._frames):
                count = len(self._frames)
                await asyncio.wait([self._reader], timeout=self._options.limits.stall_s)
            if not self._is_done:
                self._fail("stuck", "the decoder did not come to an end")
        return DecodedVideo(tuple(self._frames), tuple(self._stills), self._problem, self._damaged)

    async def __aenter__(self) -> Self:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *module_command("jobtester.video"),
                self._options.as_argument(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=child_environment(),
                limit=MAX_LINE_BYTES,
            )
        except OSError as error:  # no process, no memory or no descriptor is left
            self._fail("not_started", f"the decoder could not be started: {error}")
            self._is_done = True
            return self
        self._reader = asyncio.create_task(self._read(self._process), name="video decoder")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._reader is None:
            return
        self._kill()
        # The reader ends with the process: nobody else has its output.
        await self._reader
        if self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(OSError):
                await self._process.stdin.wait_closed()

    async def _send(self, data: bytes) -> None:
        if self._process is None or self._process.stdin is None or self._is_done or self._problem is not None:
            return
        try:
            self._process.stdin.write(data)
            async with asyncio.timeout(self._options.limits.stall_s):
                await self._process.stdin.drain()
        except TimeoutError:
            self._fail("stuck", f"the decoder took nothing for {self._options.limits.stall_s:g} s")
        except OSError:
            # It is gone; its last words, or how it ended, are on their way to the reader.
            if self._reader is not None:
                await asyncio.wait([self._reader], timeout=self._options.limits.stall_s)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        has_ended = False
        try:
            # ValueError: a line that is too long, is not JSON, or is no report. A stream may have hijacked the decoder.
            while not has_ended and (line := await process.stdout.readline()):
                has_ended = self._accept(orjson.loads(line))
                self._changed.set()
        except ValueError:
            self._fail("crashed", "the decoder sent something that is no report")
            self._kill()
        try:
            async with asyncio.timeout(self._options.limits.stall_s):
                await process.wait()
        except TimeoutError:
            self._kill()
        returncode = await process.wait()
        while await process.stdout.read(MAX_LINE_BYTES):
            pass  # what is left in the pipe, which is closed only when it is empty
        if not has_ended and self._problem is None:
            self._fail(*_explain_end(returncode))
        self._is_done = True
        self._changed.set()

    def _accept(self, message: Any) -> bool:
        """Take one line of the process in; return True if it is the last one. Raises ValueError."""
        match message:
            case {"frame": record} if len(self._frames) < self._options.limits.max_frames:
                self._frames.append(FrameRecord.from_message(record))
                return False
            case {"still": still} if len(self._stills) < 2 * self._options.stills + bool(self._options.stills):
                self._stills.append(Still.from_message(still))
                return False
            case {"end": None, "damaged": int(damaged)}:
                self._damaged = damaged
                return True
            case {"end": [str(code), str(text)], "damaged": int(damaged)} if code in STREAM_PROBLEMS:
                self._damaged = damaged
                self._fail(code, clean_prose(text, _MAX_MESSAGE_CHARS))
                return True
        raise ValueError("not a report")

    def _fail(self, code: str, message: str) -> None:
        if self._problem is None:
            self._problem = StreamProblem(code, message)
        if code == "stuck":
            self._kill()

    def _kill(self) -> None:
        # Not by the process object: it would collect the exit status, which asyncio then misses.
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)


def _explain_end(returncode: int) -> tuple[str, str]:
    if returncode == -signal.SIGXCPU:
        return "too_heavy", "decoding takes more processor time than the tester grants"
    cause = signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
    return "crashed", f"the decoder ended with {cause}"
