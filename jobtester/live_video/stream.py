"""Run one live video stream through a gateway: start it, feed it, watch what comes back, and end it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from jobtester.domain.exchanges import Ending
from jobtester.domain.stream_status import StreamTrace, UnusableStatusError
from jobtester.errors import GatewayError, GatewayRefusedError
from jobtester.live_video.listener import CallbackListener, Chunks, StreamPorts
from jobtester.live_video.stream_api import StreamApi, StreamStart
from jobtester.video.byte_stream import ReceiverTooSlowError, VideoInputError
from jobtester.video.decoder import DecodedVideo, VideoDecoder
from jobtester.video.decoder_options import DecoderLimits, DecoderOptions
from jobtester.video.frame_schedule import SentFrames
from jobtester.video.pattern import SCENE_S, VideoFormat
from jobtester.video.video_input import VideoInput

T = TypeVar("T")

_POLL_S = 1.0
_REOPEN_S = 6.0  # a gateway opens a broken output again after 5 s
_CLOSE_S = 5.0  # an output ends so soon after its input at the latest
_START_CALL_S = 30.0  # a gateway looks for an orchestrator before it answers
_MAX_FAILED_POLLS = 5
_MAX_WRITE_S = 2.0  # how long a piece of the input may wait to be taken
_STILLS = 6
_MIN_BEFORE_UPDATE_S = 2 * SCENE_S + 0.5  # a reaction is seen by comparing with a dark and a bright scene before it


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What to send, and how long to watch; times in seconds.

    `update` are the whole parameters after the change, which comes a third into the output; None for no change.
    `awaited_hashes` are what a runner may report once it has them.
    """

    start: StreamStart
    form: VideoFormat
    start_limit_s: float
    duration_s: float
    update: Mapping[str, Any] | None = None
    awaited_hashes: frozenset[str] = frozenset()

    @property
    def longest_s(self) -> float:
        """Return how long the stream runs at most."""
        return self.start_limit_s + self.duration_s + _START_CALL_S


@dataclass(frozen=True, slots=True)
class StreamRecording:
    """All that was seen of a stream. `started_at` is in Unix seconds, every other time in monotonic ones.

    `was_asked` means that the gateway called the tester back at all, `intake_problem` why it did not take the whole
    input. `ended_early_at` is when the output ended for good although its input went on, None if it did not.
    """

    started_at: float
    started: float
    watched_until: float
    ending: Ending
    trace: StreamTrace
    sent: SentFrames
    outputs: tuple[DecodedVideo, ...] = ()
    start_status: int | None = None
    detail: str = ""
    was_asked: bool = False
    intake_problem: str = ""
    ended_early_at: float | None = None
    updated_at: float | None = None
    is_gateway_alive: bool = True
    tester_problem: str = ""

    @property
    def first_frame_at(self) -> float | None:
        """Return when the first frame arrived, None if none did."""
        return min((output.frames[0].arrived for output in self.outputs if output.frames), default=None)

    @classmethod
    def not_begun(cls, form: VideoFormat, started_at: float, problem: str) -> Self:
        """Return the recording of a stream that the tester itself could not begin."""
        now = time.monotonic()
        nothing = SentFrames(form, now, {}, 0, 0)
        return cls(started_at, now, now, Ending.REFUSED, StreamTrace(), nothing, tester_problem=problem)


class LiveStream:
    """One stream from its start to its end; run() once."""

    def __init__(
        self, plan: StreamPlan, api: StreamApi, listener: CallbackListener, clock: Callable[[], float] = time.time
    ) -> None:
        """Prepare a stream; `clock` gives Unix seconds."""
        self._plan = plan
        self._api = api
        self._listener = listener
        self._clock = clock
        self._ports = StreamPorts(plan.start.stream_id, self._make_input, self._take_output)
        self._inputs: list[VideoInput[Any]] = []
        self._outputs: list[DecodedVideo] = []
        self._trace = StreamTrace()
        self._started = self._watched_until = 0.0
        self._first_frame_at: float | None = None
        self._first_frame = asyncio.Event()
        self._over = asyncio.Event()
        self._aborted = asyncio.Event()
        self._is_gateway_alive = True
        self._failed_polls = 0
        self._updated_at: float | None = None
        self._ended_early_at: float | None = None
        self._detail = self._tester_problem = ""

    def abort(self) -> None:
        """End the stream now, because the tester stops."""
        self._aborted.set()
        self._over.set()

    async def run(self) -> StreamRecording:
        """Run the stream to its end. Never raises for what the network does."""
        started_at, self._started = self._clock(), time.monotonic()
        self._listener.add(self._ports)
        status, ending = None, Ending.ANSWERED
        try:
            answer = await self._unless_aborted(self._api.start(self._plan.start, timeout_s=_START_CALL_S))
            if answer is not None:
                status, self._detail = answer
            if status == 200:
                await self._watch()
        except GatewayError as error:
            ending = Ending.REFUSED if isinstance(error, GatewayRefusedError) else Ending.NO_REPLY
            self._detail = str(error)
            self._is_gateway_alive = ending is not Ending.REFUSED
        finally:
            await self._end()
        return StreamRecording(
            started_at=started_at,
            started=self._started,
            watched_until=self._watched_until,
            ending=Ending.ABORTED if self._aborted.is_set() else ending,
            trace=self._trace,
            sent=self._inputs[-1].sent if self._inputs else SentFrames(self._plan.form, self._started, {}, 0, 0),
            outputs=tuple(self._outputs),
            start_status=status,
            detail=self._detail,
            was_asked=self._ports.asked_at is not None or self._ports.input_taken_at is not None,
            intake_problem=self._find_intake_problem(),
            ended_early_at=self._ended_early_at,
            updated_at=self._updated_at,
            is_gateway_alive=self._is_gateway_alive,
            tester_problem=self._tester_problem,
        )

    def _find_intake_problem(self) -> str:
        if self._ports.input_taken_at is None:
            return "The gateway did not take the input."
        is_slow = self._ports.longest_write_s > _MAX_WRITE_S or any(video.was_reader_too_slow for video in self._inputs)
        return "The gateway took the input more slowly than it was made." if is_slow else ""

    async def _watch(self) -> None:
        """Watch the stream until its time is over, or until it ends by itself."""
        watchers = [
            asyncio.create_task(self._poll_status(), name="live video status"),
            asyncio.create_task(self._watch_ports(), name="live video ports"),
        ]
        try:
            await self._wait_over_or(self._first_frame, until=self._started + self._plan.start_limit_s)
            if self._first_frame_at is not None:
                update_s = max(self._plan.duration_s / 3, _MIN_BEFORE_UPDATE_S)
                await self._wait_over_or(None, until=self._first_frame_at + update_s)
                await self._update()
                await self._wait_over_or(None, until=self._first_frame_at + self._plan.duration_s)
        finally:
            for watcher in watchers:
                watcher.cancel()
            results = await asyncio.gather(*watchers, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _wait_over_or(self, event: asyncio.Event | None, *, until: float) -> None:
        """Wait for the end of the stream or for an event, until a monotonic time at most."""
        waits = [asyncio.ensure_future(self._over.wait())]
        if event is not None:
            waits.append(asyncio.ensure_future(event.wait()))
        try:
            await asyncio.wait(waits, timeout=max(0.0, until - time.monotonic()), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _poll_status(self) -> None:
        """Read the gateway's status again and again, until the stream is over."""
        while not self._over.is_set():
            try:
                await self._read_status()
                self._failed_polls = 0
            except GatewayError as error:
                self._failed_polls += 1
                if self._failed_polls == _MAX_FAILED_POLLS:
                    self._is_gateway_alive, self._detail = False, str(error)
                    self._over.set()
            # A stream that nobody took is over; one that was taken shows that by its output.
            if self._trace.found_nobody_s is not None and not self._trace.orchestrator_urls:
                self._over.set()
            await asyncio.sleep(_POLL_S)

    async def _read_status(self) -> None:
        status, is_missing = None, False
        with contextlib.suppress(UnusableStatusError):
            status = await self._api.read_status(self._plan.start.stream_id)
            is_missing = status is None
        at_s = time.monotonic() - self._started
        if status is None:
            # A gateway that broke off before it was asked may have restarted: it had the stream, and shows no status.
            has_broken_off = self._failed_polls > 0 or self._ports.output_closed_at is not None
            self._trace = self._trace.add_unknown(at_s, is_taken=is_missing and has_broken_off)
            return
        awaited = self._plan.awaited_hashes if self._updated_at is not None else frozenset()
        self._trace = self._trace.add(status, at_s, awaited_hashes=awaited)

    async def _watch_ports(self) -> None:
        """End the stream when the gateway has ended it: by a kick, or by an output that is closed and stays so."""
        ports = self._ports
        while not self._over.is_set():
            if ports.kicked_at is None and (ports.outputs == 0 or ports.has_open_output):
                await ports.wait_for_change()
                continue
            if ports.has_open_output or ports.kicked_at is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_S if ports.has_open_output else _REOPEN_S):
                        await ports.wait_for_change()
                        continue
            self._ended_early_at = ports.output_closed_at or ports.kicked_at
            self._over.set()

    async def _update(self) -> None:
        """Change the parameters once."""
        if self._plan.update is None or self._over.is_set():
            return
        with contextlib.suppress(GatewayError):  # a gateway that is gone is seen by the status
            call = self._api.update(self._plan.start.stream_id, self._plan.update)
            if await self._unless_aborted(call) == 200:
                self._updated_at = time.monotonic()

    async def _end(self) -> None:
        """End the input, and wait until the output has ended; there is no other way to end a stream."""
        try:
            if self._is_gateway_alive and not self._aborted.is_set():
                with contextlib.suppress(GatewayError):
                    await self._unless_aborted(self._read_status())  # before its end, which the gateway calls an error
            self._over.set()
            self._watched_until = time.monotonic()
            self._ports.is_alive = False
            for video in self._inputs:
                video.stop()
            await self._wait_for_outputs()
        finally:
            self._listener.remove(self._ports)
        await self._wait_for_outputs()  # what is cut is decoded as far as it came
        if self._ports.has_open_output:
            self._tester_problem = self._tester_problem or "the tester's decoder came to no end"

    async def _wait_for_outputs(self) -> None:
        """Wait until no output comes any more: for some seconds, or for a moment where the tester stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                while self._ports.has_open_output and not self._aborted.is_set():
                    await self._unless_aborted(self._ports.wait_for_change())

    async def _unless_aborted(self, call: Coroutine[Any, Any, T]) -> T | None:
        """Return what a call returns; None if the tester stops before, which ends the call."""
        task, stop = asyncio.ensure_future(call), asyncio.ensure_future(self._aborted.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _make_input(self) -> AsyncGenerator[bytes]:
        """Make the video from now on, for one reader."""
        async with VideoInput.as_matroska(self._plan.form) as video:
            self._inputs.append(video)
            try:
                async for data in video.output:
                    yield data
            except VideoInputError as error:
                self._tester_problem = str(error)
            except ReceiverTooSlowError:
                pass  # the video remembers it, also where its reader waits for a gateway that takes nothing

    async def _take_output(self, chunks: Chunks) -> None:
        """Decode one connection's output, and see when the very first frame has come."""
        limits = DecoderLimits.for_video(self._plan.form, self._plan.longest_s)
        options = DecoderOptions(self._plan.form, "flv", _STILLS, limits)
        is_whole = False
        try:
            async with VideoDecoder(options) as decoder:
                waiting = asyncio.create_task(self._see_first_frame(decoder), name="first frame")
                try:
                    async for arrived, data in chunks:
                        await decoder.feed(data, arrived)
                    self._outputs.append(await decoder.finish())
                    is_whole = True
                finally:
                    waiting.cancel()
                    await asyncio.wait([waiting])
        finally:
            if not is_whole:  # frames that nobody counted are no fault of the orchestrator's
                self._tester_problem = self._tester_problem or "the output could not be taken in"

    async def _see_first_frame(self, decoder: VideoDecoder) -> None:
        if await decoder.wait_for_frames(1) and self._first_frame_at is None:
            self._first_frame_at = decoder.frames[0].arrived
            self._first_frame.set()
