"""Video input: make the tester's own video in real time on a thread, and pass its bytes to readers on the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from jobtester.crash_boundary import CrashBoundary
from jobtester.errors import JobTesterError
from jobtester.video.byte_stream import Buffer, ByteStream, ReceiverTooSlowError, VideoInputError
from jobtester.video.encoder import Encoder
from jobtester.video.frame_schedule import FrameSchedule, SentFrames
from jobtester.video.marks import MAX_NUMBER
from jobtester.video.pattern import VideoFormat
from jobtester.video.segments import SegmentStream

_JOIN_TIMEOUT_S = 10.0


class _Output(Protocol):
    """What readers iterate over."""

    def put(self, data: bytes, *, starts_segment: bool) -> None: ...
    def close(self, error: JobTesterError | None = None) -> None: ...


OutputT = TypeVar("OutputT", bound=_Output)


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How long a video may last, how many bytes may wait for its readers, and the clock that its frames follow.

    `count_crash` is called if the video ends by a defect of the tester.
    """

    max_s: float = 600.0
    max_buffered_bytes: int = 8 * 2**20  # about half a minute of video
    clock: Callable[[], float] = time.monotonic
    count_crash: Callable[[str], None] | None = None


_DEFAULTS = InputOptions()


class VideoInput(Generic[OutputT]):
    """A video that is made in real time while the context is entered, until `stop` or its longest time.

    Readers iterate over `output` on the event loop. If they are too slow for the buffer, the video ends, they get
    ReceiverTooSlowError, and `was_reader_too_slow` is set; after a defect, VideoInputError.
    """

    def __init__(
        self, form: VideoFormat, container: str, output: OutputT, buffer: Buffer, options: InputOptions
    ) -> None:
        self.output = output
        self.was_reader_too_slow = False
        self._form = form
        self._container = container
        self._buffer = buffer
        self._end = min(int(options.max_s * form.fps), MAX_NUMBER + 1)
        self._clock = options.clock
        self._boundary = CrashBoundary(options.count_crash)
        self._stop = threading.Event()
        self._schedule: FrameSchedule | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="video input", daemon=True)

    @classmethod
    def as_matroska(cls, form: VideoFormat, options: InputOptions = _DEFAULTS) -> VideoInput[ByteStream]:
        """Return a video as one Matroska stream, for a chunked HTTP response."""
        buffer = Buffer(options.max_buffered_bytes)
        return VideoInput(form, "matroska", ByteStream(buffer), buffer, options)

    @classmethod
    def as_segments(cls, form: VideoFormat, options: InputOptions = _DEFAULTS) -> VideoInput[SegmentStream]:
        """Return a video as MPEG-TS segments of one second, each a stream of its own, for trickle."""
        buffer = Buffer(options.max_buffered_bytes)
        return VideoInput(form, "mpegts", SegmentStream(buffer), buffer, options)

    @property
    def sent(self) -> SentFrames:
        """Return what was sent so far."""
        if self._schedule is None:
            return SentFrames(self._form, self._clock(), {}, 0, 0)
        return self._schedule.report()

    def stop(self) -> None:
        """End the video after the current frame; readers get the rest of it."""
        self._stop.set()

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await asyncio.to_thread(self._thread.join, _JOIN_TIMEOUT_S)
        self.output.close()

    def _run(self) -> None:
        problem: JobTesterError | None = None
        with self._boundary.unit("video") as crash:
            self._make_video()
        if crash.error is not None:
            problem = VideoInputError(crash.message)
        self._call(self.output.close, problem)

    def _make_video(self) -> None:
        encoder = Encoder(self._form, self._container)
        try:
            # The clock starts when the encoder is ready: opening it takes longer than a frame.
            schedule = self._schedule = FrameSchedule(self._form, self._clock(), self._end)
            unsent: list[int] = []
            while not self._stop.is_set():
                number, wait_s = schedule.next_frame(self._clock())
                if number >= self._end:
                    break
                if wait_s > 0:
                    self._stop.wait(wait_s)
                    continue
                piece, starts_segment = encoder.encode(number)
                now = self._clock()
                schedule.count_encoded(number, now)
                unsent.append(number)
                for complete in unsent[: len(unsent) - encoder.held_frames]:
                    schedule.count_sent(complete, now)
                    unsent.remove(complete)
                self._call(self._accept, piece, starts_segment)
            piece = encoder.finish()
            for number in unsent:
                schedule.count_sent(number, self._clock())
            self._call(self._accept, piece, False)
        finally:
            encoder.close()

    def _call(self, function: Callable[..., None], *values: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *values)
        except RuntimeError:  # the loop is closed, so no readers are left
            self.stop()

    def _accept(self, data: bytes, starts_segment: bool) -> None:
        self.output.put(data, starts_segment=starts_segment)
        if self._buffer.is_full:
            self.was_reader_too_slow = True
            self.stop()
            self.output.close(ReceiverTooSlowError())
