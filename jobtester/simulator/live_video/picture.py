"""Pictures that differ from what came in: black, the same again, or inverted. Call in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal

from av import VideoFrame
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from jobtester.simulator.live_video.remuxing import SegmentMuxer

Look = Literal["same", "black", "frozen", "inverted"]

_INVERTED = bytes(255 - value for value in range(256))
_FORMAT = "yuv420p"


def change_picture(frame: VideoFrame, look: Look, first: VideoFrame | None) -> VideoFrame:
    """Return a new frame of the same time. `first` is what a frozen picture shows."""
    source = first if look == "frozen" and first is not None else frame
    if source.format.name != _FORMAT:
        source = source.reformat(format=_FORMAT)
    changed = VideoFrame(frame.width, frame.height, _FORMAT)
    for number, (target, plane) in enumerate(zip(changed.planes, source.planes, strict=True)):
        if look == "black":
            content = bytes([16 if number == 0 else 128]) * target.buffer_size
        else:
            content = _copy_rows(bytes(plane), plane.line_size, target.line_size, target.height)
            if look == "inverted":
                content = content.translate(_INVERTED)
        target.update(content)
    changed.pts, changed.time_base = frame.pts, frame.time_base
    return changed


def _copy_rows(content: bytes, from_size: int, to_size: int, rows: int) -> bytes:
    if from_size == to_size:
        return content[: to_size * rows].ljust(to_size * rows, b"\0")
    width = min(from_size, to_size)
    lines = (content[row * from_size : row * from_size + width].ljust(to_size, b"\0") for row in range(rows))
    return b"".join(lines)


class Transcoder:
    """Decodes packets, changes what they show, and writes them as new segments, each with an encoder of its own.

    `interval_s`: frames that come sooner after the last one are left out.
    """

    def __init__(self, muxer: SegmentMuxer, interval_s: float = 0.0) -> None:
        self._muxer, self._interval_s = muxer, interval_s
        self._first: VideoFrame | None = None
        self._last_s = -1e9

    def write(self, packet: Packet[Any], look: Look) -> int:
        """Write the frames of a packet; return how many."""
        written = 0
        for frame in self._decode(packet):
            frame_s = float((frame.pts or 0) * (frame.time_base or Fraction(1, 90_000)))
            if frame_s - self._last_s < self._interval_s:
                continue
            self._last_s = frame_s
            if self._first is None:
                self._first = change_picture(frame, "same", None)
            changed = change_picture(frame, look, self._first)
            if self._muxer.is_border(frame_s, is_key=True):
                self._begin_segment(changed, frame_s)
            stream = self._muxer.stream
            assert stream is not None
            for encoded in stream.encode(changed):
                self._muxer.mux(encoded)
            written += 1
        return written

    def finish_segment(self) -> None:
        """End the open segment."""
        self._muxer.end()

    def _begin_segment(self, frame: VideoFrame, frame_s: float) -> None:
        def create(output: OutputContainer) -> VideoStream:
            stream = output.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, _FORMAT
            stream.time_base = stream.codec_context.time_base = Fraction(1, 90_000)
            stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
            return stream

        self._muxer.begin(frame_s, create)

    @staticmethod
    def _decode(packet: Packet[Any]) -> Iterator[VideoFrame]:
        for frame in packet.decode():
            if isinstance(frame, VideoFrame):
                yield frame
