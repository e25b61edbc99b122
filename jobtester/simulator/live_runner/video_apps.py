"""The video apps behind runners: what comes in one channel goes out in another, changed by a fault if there is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import av

from jobtester.simulator.background_tasks import BackgroundTasks, run_beside
from jobtester.simulator.background_thread import run_in_thread
from jobtester.simulator.live_runner.runner import Session
from jobtester.simulator.live_spec import LiveContainerSpec
from jobtester.simulator.live_video.byte_pipes import BytePipe, ChunkQueue
from jobtester.simulator.live_video.picture import Look, Transcoder
from jobtester.simulator.live_video.remuxing import SegmentMuxer, is_usable, open_input
from jobtester.simulator.trickle.channel import Channel, Segment
from jobtester.simulator.trickle.server import BASE_PATH, TrickleServer

_MIME_TYPE = "video/MP2T"
_OTHER_HOST = "https://elsewhere.sim.example:8935"
_LOOKS: dict[str, Look] = {"video_slow": "same", "video_black": "black", "video_frozen": "frozen"}


@dataclass(slots=True)
class LoggedVideoStream:
    """What one app did: when the first byte came in its input and when it wrote the first one of its output."""

    session_id: str
    fault: str
    first_input_at: float | None = None
    first_output_at: float | None = None


class VideoApps:
    """The video apps of one orchestrator's sessions."""

    def __init__(self, channels: TrickleServer) -> None:
        self._channels = channels
        self._tasks = BackgroundTasks()
        self.streams: list[LoggedVideoStream] = []

    def open(
        self, session: Session, fault: str, spec: LiveContainerSpec, base_url: str, lose_sessions: Callable[[], None]
    ) -> dict[str, str]:
        """Open the two channels of a session, if they are not open yet, and return their URLs.

        `lose_sessions` is called when a fault has the runner lose them.
        """
        names = {name: f"{session.session_id}-{name}" for name in ("in", "out")}
        if not self._channels.exists(names["in"]):
            source, target = (self._channels.create(name, _MIME_TYPE) for name in names.values())
            self.streams.append(LoggedVideoStream(session.session_id, fault))
            app = _VideoApp(source, target, self.streams[-1], spec, self._channels, lose_sessions)
            self._tasks.start(app.run(), f"video app of {session.session_id}")
            session.end_callbacks.append(app.close)
        host = _OTHER_HOST if fault == "video_other_host" else base_url
        return {name: f"{host}{BASE_PATH}/{channel}" for name, channel in names.items()}

    async def stop(self) -> None:
        """Close every channel, and end every app."""
        self._channels.close_all()
        await self._tasks.cancel_all()


class _VideoApp:
    """One stream through one app, from its first byte to the end of its input or of its session."""

    def __init__(
        self,
        source: Channel,
        target: Channel,
        log: LoggedVideoStream,
        spec: LiveContainerSpec,
        channels: TrickleServer,
        lose_sessions: Callable[[], None],
    ) -> None:
        self._source, self._target, self._fault, self._spec = source, target, log.fault, spec
        self._channels, self._log, self._lose_sessions = channels, log, lose_sessions

    def close(self) -> None:
        """Close both channels."""
        for channel in (self._source, self._target):
            if self._channels.find(channel.name) is channel:
                self._channels.close(channel.name)

    async def run(self) -> None:
        """Return the input, changed by the fault if there is one, and close the output after it."""
        if self._fault in _LOOKS:
            await self._transcode(_LOOKS[self._fault])
        else:
            await self._relay()
        if not (self._fault == "video_dies" and self._is_fault_time):
            self.close()

    async def _relay(self) -> None:
        async for piece in self._source.read(0):
            if piece.data and self._log.first_input_at is None:
                self._log.first_input_at = time.monotonic()
            if self._fault == "video_session_lost" and self._is_fault_time:
                self._lose_sessions()
                return
            if self._fault == "video_mute" or (self._fault == "video_dies" and self._is_fault_time):
                continue
            if self._fault == "video_ends_early" and self._is_fault_time:
                return
            segment = self._target.open_for_writing(piece.number)
            if not piece.data:
                segment.finish()
            elif self._fault != "video_empty_segments":
                self._append(segment, piece.data)

    @property
    def _is_fault_time(self) -> bool:
        begun_at = self._log.first_input_at
        return begun_at is not None and time.monotonic() - begun_at >= self._spec.fault_after_s

    def _append(self, segment: Segment, data: bytes) -> None:
        if self._log.first_output_at is None:
            self._log.first_output_at = time.monotonic()
        self._target.append(segment, data)

    async def _transcode(self, look: Look) -> None:
        pipe, queue = BytePipe(), ChunkQueue()
        work = run_in_thread(lambda: self._process(pipe, queue, look), f"video app {self._source.name}")
        try:
            await run_beside(self._send(queue), self._take(pipe), work)
        finally:
            pipe.abort()
            queue.close()

    async def _take(self, pipe: BytePipe) -> None:
        async for piece in self._source.read(0):
            if piece.data and self._log.first_input_at is None:
                self._log.first_input_at = time.monotonic()
            pipe.feed(piece.data)
        pipe.close()

    async def _send(self, queue: ChunkQueue) -> None:
        while (chunk := await queue.next_chunk()) is not None:
            segment = self._target.open_for_writing(chunk.segment)
            if chunk.is_end:
                segment.finish()
            else:
                self._append(segment, chunk.content)

    def _process(self, pipe: BytePipe, queue: ChunkQueue, look: Look) -> None:
        transcoder = Transcoder(SegmentMuxer(queue), 1 / self._spec.slow_fps if self._fault == "video_slow" else 0.0)
        try:
            with open_input(pipe, lambda _: 0.0, "mpegts") as container:
                for packet in container.demux(container.streams.video[0]):
                    if is_usable(packet):
                        transcoder.write(packet, look)
            transcoder.finish_segment()
        except (av.FFmpegError, OSError, EOFError):
            pass  # the input has ended in the middle, or the session is over
        finally:
            queue.finish()
