"""Move packets of video from one container format to another as ffmpeg's `-c copy` does. Call in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, cast

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from jobtester.simulator.live_video.byte_pipes import BytePipe, ChunkQueue

# Nothing is held back and nothing is looked at for long: how long ffmpeg would probe is waited for apart.
_PROBE_OPTIONS = {"analyzeduration": "1", "probesize": "65536"}
_SEGMENT_S = 1.0
_FIRST_SEGMENT_S = 1.5  # the first one was measured to last longer than the rest
_ROUNDING_S = 0.02


def open_input(pipe: BytePipe, probe_s: Callable[[str], float], file_format: str | None = None) -> InputContainer:
    """Open a stream of video, and return when ffmpeg would have looked at it for the time that its format takes.

    `probe_s` returns the seconds for a format's name. Raises av.FFmpegError or OSError if it holds no video.
    """
    if not pipe.wait_for_bytes():
        raise EOFError("no input")
    begun_at = time.monotonic()
    container: InputContainer = av.open(cast("Any", pipe), format=file_format, options=_PROBE_OPTIONS)
    if not container.streams.video:
        container.close()
        raise EOFError("no video in the input")
    pipe.wait_closed(max(0.0, probe_s(container.format.name) - (time.monotonic() - begun_at)))
    return container


class SegmentMuxer:
    """Write packets as MPEG-TS segments that begin with key frames and last about a second."""

    def __init__(self, queue: ChunkQueue) -> None:
        self._queue = queue
        self._output: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._begun_s = 0.0
        self._least_s = _FIRST_SEGMENT_S

    def is_border(self, packet_s: float, *, is_key: bool) -> bool:
        """Return True if a packet of this time has to begin a new segment."""
        if self._output is None:
            return True
        return is_key and not self._begun_s <= packet_s < self._begun_s + self._least_s - _ROUNDING_S

    def begin(self, packet_s: float, create_stream: Callable[[OutputContainer], VideoStream]) -> VideoStream:
        """Begin a segment and return its stream."""
        if self._output is not None:
            self._least_s = _SEGMENT_S
        self.end()
        self._queue.begin_segment()
        self._output = open_output(self._queue, "mpegts")
        self._stream = create_stream(self._output)
        self._begun_s = packet_s
        return self._stream

    @property
    def stream(self) -> VideoStream | None:
        """The stream of the open segment."""
        return self._stream

    def mux(self, packet: Packet[Any]) -> None:
        """Write a packet to the open segment."""
        assert self._output is not None
        packet.stream = self._stream
        self._output.mux(packet)

    def copy(self, packet: Packet[Any], template: VideoStream) -> None:
        """Write a packet of another container, to a new segment where it has to."""
        packet_s = packet_seconds(packet)
        if self.is_border(packet_s, is_key=packet.is_keyframe):
            self.begin(packet_s, lambda output: output.add_stream_from_template(template))
        self.mux(packet)

    def end(self) -> None:
        """End the open segment."""
        output, self._output, self._stream = self._output, None, None
        if output is not None:
            output.close()
            self._queue.end_segment()


def open_output(queue: ChunkQueue, file_format: str) -> OutputContainer:
    """Return a muxer that passes every packet on at once."""
    options = {"flush_packets": "1"}
    if file_format == "flv":
        options["flvflags"] = "no_duration_filesize"
    else:  # a reader knows where a frame ends, and does not wait for the next one
        options["omit_video_pes_length"] = "0"
    return av.open(cast("Any", queue), "w", format=file_format, options=options)


def packet_seconds(packet: Packet[Any]) -> float:
    """Return the time of a packet within its stream."""
    time_base = packet.time_base or Fraction(1, 90_000)
    return float((packet.pts if packet.pts is not None else packet.dts or 0) * time_base)


def is_usable(packet: Packet[Any]) -> bool:
    """Return True if a packet holds a frame. One without a decoding time gets it: the first ones of Matroska."""
    if not packet.size or packet.pts is None:
        return False
    if packet.dts is None:
        packet.dts = packet.pts
    return True


def segment_input(
    pipe: BytePipe, queue: ChunkQueue, probe_s: Callable[[str], float], on_frame: Callable[[], None]
) -> int:
    """Cut the input into segments until it ends; return how many frames it had. `on_frame` is called for each."""
    muxer, frames = SegmentMuxer(queue), 0
    try:
        with open_input(pipe, probe_s) as container:
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                if not is_usable(packet) or (frames == 0 and not packet.is_keyframe):
                    continue
                frames += 1
                on_frame()
                muxer.copy(packet, stream)
    except (av.FFmpegError, OSError, EOFError):
        pass  # a broken input has ended; the gateway then asks whether it still exists
    finally:
        muxer.end()
    return frames


def convert_to_flv(
    pipe: BytePipe, queue: ChunkQueue, probe_s: Callable[[str], float], on_frame: Callable[[], None]
) -> None:
    """Write the MPEG-TS of `pipe` as one FLV file until it ends."""
    is_first = True
    try:
        with open_input(pipe, probe_s, "mpegts") as container:
            stream = container.streams.video[0]
            queue.begin_segment()
            with open_output(queue, "flv") as output:
                target = output.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    if not is_usable(packet) or (is_first and not packet.is_keyframe):
                        continue
                    if is_first:
                        output.start_encoding()
                        queue.mark_first_frame()
                        is_first = False
                    packet.stream = target
                    output.mux(packet)
                    on_frame()
    except (av.FFmpegError, OSError, EOFError):
        pass  # the client has closed the connection, or there was no video
    finally:
        queue.finish()
