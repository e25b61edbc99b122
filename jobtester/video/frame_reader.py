"""Read the frames of an untrusted stream, and make a record of each. Runs in a decoder process only."""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import av
from av.video.reformatter import Interpolation, VideoReformatter

from jobtester.video.arriving_stream import ArrivingStream
from jobtester.video.decoder_options import DecoderOptions
from jobtester.video.frame_record import FINGERPRINT_SIDE, FrameRecord
from jobtester.video.marks import read_mark
from jobtester.video.pattern import Pattern, VideoFormat

_SMALL_SIDE = 64  # marks are read, and pictures compared, at this size
_COMPARED_STEP = 17  # every 17th pixel of the small picture is compared with the input
_MAX_INPUT_DIFFERENCE = 14  # of 255 on average; compression changes less, any other picture more
_MAX_PENDING = 64  # packets whose frames are still to come
_MAX_DAMAGED = 1000
# A live demuxer should begin with the first frame; it reads at most this much to find out what the stream contains.
_PROBE_BYTES = {"mpegts": 16 * 1024, "flv": 4 * 1024}
_ANALYZE_MICROSECONDS = 100_000
_TS_PACKET = 188
_TS_PAYLOAD = 184
# The shortest one there is. One part too few may count the end of a frame a moment too early; one too many would count
# the arrival of the next frame.
_PES_HEADER = 14
_FLV_OVERHEAD = 20  # the header of the tag and of the video in it, and the size at its end
_MAX_SPAN_S = 1e9


class StreamError(Exception):
    """The stream cannot be decoded; `code` as in StreamProblem."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class FrameReader:
    """Reads one stream. `damaged` counts pieces that could not be decoded and were passed over."""

    def __init__(self, stream: ArrivingStream, options: DecoderOptions) -> None:
        self.damaged = 0
        self._stream = stream
        self._options = options
        self._pattern = Pattern(VideoFormat(_SMALL_SIDE, _SMALL_SIDE, options.form.fps))
        # Each keeps its scaling tables from frame to frame.
        self._shrink, self._shrink_more = VideoReformatter(), VideoReformatter()
        self._arrivals: OrderedDict[int | None, float] = OrderedDict()
        self._container = options.container

    def frames(self) -> Iterator[tuple[FrameRecord, Any]]:
        """Return each frame with its record. Raises StreamError, and MemoryError if the stream takes too much."""
        self._container = self._container or self._detect()
        try:
            yield from self._decode()
        # LookupError: PyAV raises it for streams that a table of contents announces late.
        except (av.FFmpegError, ValueError, LookupError) as error:
            if getattr(error, "errno", None) == errno.ENOMEM:
                raise MemoryError from error
            raise StreamError("undecodable", f"the stream cannot be decoded: {_describe(error)}") from error

    def _detect(self) -> str:
        head = self._stream.peek(3)
        if head == b"FLV":
            return "flv"
        if head[:1] == b"\x47":
            return "mpegts"
        if not head:
            raise StreamError("no_video", "the stream is empty")
        raise StreamError("undecodable", f"the stream is neither MPEG-TS nor FLV: it begins with {head!r}")

    def _decode(self) -> Iterator[tuple[FrameRecord, Any]]:
        options = {
            "probesize": str(_PROBE_BYTES[self._container]),
            "analyzeduration": str(_ANALYZE_MICROSECONDS),
            "codec_whitelist": "h264",
            "max_streams": "8",
        }
        if not self._stream.peek(1):
            raise StreamError("no_video", "the stream is empty")
        with av.open(
            self._stream, "r", format=self._container, options=options, buffer_size=4096, metadata_errors="ignore"
        ) as container:
            stream: Any = container.streams.best("video")
            if stream is None:
                raise StreamError("no_video", "the stream has no video")
            codec = stream.codec_context
            if codec is None or codec.name != "h264":
                raise StreamError("unsupported", f"the video is {codec.name if codec else 'unknown'}, not H.264")
            self._check_size(codec.width, codec.height)
            # Threads of the decoder would hold frames back, and use up processor time side by side.
            codec.thread_count = 1
            codec.options = {"max_pixels": str(self._options.limits.max_pixels)}
            index = 0
            for packet in self._packets(container, stream):
                for frame in self._decode_packet(packet, codec):
                    if index >= self._options.limits.max_frames:
                        raise StreamError("too_many_frames", f"the stream has more than {index} frames")
                    self._check_size(frame.width, frame.height)
                    yield self._record(index, frame), frame
                    index += 1

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except LookupError:
                # A segment may have sound where those before had none. PyAV then fails at the end, after all packets.
                if not self._stream.is_over:
                    raise
                return
            if packet is None:
                return
            yield packet

    def _decode_packet(self, packet: Any, codec: Any) -> list[Any]:
        if packet.size:
            self._arrivals[packet.pts] = self._stream.arrived(self._end_offset(packet))
            if len(self._arrivals) > _MAX_PENDING:
                self._arrivals.popitem(last=False)
        try:
            frames: list[Any] = packet.decode()
        except av.InvalidDataError as error:
            self.damaged += 1
            self._check_size(codec.width, codec.height)
            if self.damaged > _MAX_DAMAGED:
                raise StreamError("undecodable", "most of the stream cannot be decoded") from error
            return []
        return frames

    def _end_offset(self, packet: Any) -> int:
        """Return where in the stream a packet ends.

        MPEG-TS does not say how long a frame is, so the demuxer returns it when the next one begins, a frame too late
        for measuring. Its place and size tell which bytes completed it.
        """
        received, size, position = self._stream.received, int(packet.size), packet.pos
        if position is None or position < 0:
            return received
        if self._container == "flv":
            return min(received, int(position) + size + _FLV_OVERHEAD)
        parts = -(-(size + _PES_HEADER) // _TS_PAYLOAD)
        return min(received, int(position) + parts * _TS_PACKET)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._options.limits.max_pixels:
            raise StreamError("too_large", f"the video is {width}×{height}")

    def _record(self, index: int, frame: Any) -> FrameRecord:
        small = self._shrink.reformat(frame, _SMALL_SIDE, _SMALL_SIDE, "yuv420p", interpolation=Interpolation.AREA)
        tiny = self._shrink_more.reformat(
            small, FINGERPRINT_SIDE, FINGERPRINT_SIDE, "yuv420p", interpolation=Interpolation.AREA
        )
        brightness = _plane_bytes(small.planes[0])
        mark = read_mark(brightness, _SMALL_SIDE)
        pts_s = frame.time
        return FrameRecord(
            index=index,
            arrived=self._arrivals.pop(frame.pts, self._stream.arrived(self._stream.received)),
            pts_s=pts_s if pts_s is not None and abs(pts_s) < _MAX_SPAN_S else None,
            mark=mark,
            is_input=mark is not None and self._is_input(brightness, mark),
            brightness=round(sum(brightness) / len(brightness), 2),
            fingerprint=b"".join(_plane_bytes(plane) for plane in tiny.planes),
            is_keyframe=bool(frame.key_frame),
            width=frame.width,
            height=frame.height,
        )

    def _is_input(self, brightness: bytes, mark: int) -> bool:
        shown = brightness[::_COMPARED_STEP]
        sent = self._pattern.draw_brightness(mark)[::_COMPARED_STEP]
        return sum(abs(a - b) for a, b in zip(shown, sent, strict=True)) / len(shown) <= _MAX_INPUT_DIFFERENCE


def _plane_bytes(plane: Any) -> bytes:
    content = bytes(plane)
    if plane.line_size == plane.width:
        return content[: plane.width * plane.height]
    return b"".join(content[row * plane.line_size :][: plane.width] for row in range(plane.height))


def _describe(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
