"""Encode frames of the pattern with H.264, and pack them as MPEG-TS or Matroska. Blocks, so it runs on a thread."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from jobtester.video.pattern import Pattern, VideoFormat

# The keys of MPEG-TS in front of each frame let the file be cut at any key frame: each part is then a stream of its
# own. They cost 376 bytes a frame.
_MUXER_OPTIONS = {
    "mpegts": {"flush_packets": "1", "mpegts_flags": "pat_pmt_at_frames"},
    "matroska": {"live": "1", "flush_packets": "1", "cluster_time_limit": "0"},
}
# Matroska holds each frame back until the next one comes: only then it knows that the cluster is complete.
_HELD_FRAMES = {"mpegts": 0, "matroska": 1}
_MAX_RATE = "4M"


class _Sink:
    """Collects what the muxer writes. It has no `seek`, so that the muxer never goes back."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


Planes = tuple[bytes, bytes, bytes]


class Encoder:
    """Encodes one video, a key frame each second. `container` is `mpegts` or `matroska`.

    `draw` returns the planes of a frame by its number, in YUV 4:2:0; the pattern by default.
    """

    def __init__(self, form: VideoFormat, container: str, draw: Callable[[int], Planes] | None = None) -> None:
        import av

        self._draw = draw or Pattern(form).draw
        self._sink = _Sink()
        self._time_base = Fraction(1, form.fps)
        self.held_frames = _HELD_FRAMES[container]
        self._container = av.open(self._sink, "w", format=container, options=_MUXER_OPTIONS[container])
        options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "threads": "1",
            "crf": "23",
            "maxrate": _MAX_RATE,
            "bufsize": _MAX_RATE,
            # One key frame a second and no others, also not at scene cuts: segments have equal lengths.
            "g": str(form.fps),
            "keyint_min": str(form.fps),
            "sc_threshold": "0",
            "bf": "0",
        }
        self._stream: Any = self._container.add_stream("libx264", rate=form.fps, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = form.width, form.height, "yuv420p"
        self._stream.codec_context.time_base = self._time_base
        self._container.start_encoding()
        self._frame = av.VideoFrame(form.width, form.height, "yuv420p")

    def encode(self, number: int) -> tuple[bytes, bool]:
        """Return the bytes that frame `number` adds, and whether a key frame is the first thing in them."""
        for plane, content in zip(self._frame.planes, self._draw(number), strict=True):
            _fill(plane, content)
        self._frame.pts, self._frame.time_base = number, self._time_base
        starts = False
        for packet in self._stream.encode(self._frame):
            starts = starts or packet.is_keyframe
            self._container.mux(packet)
        return self._sink.take(), starts

    def finish(self) -> bytes:
        """Return the bytes that end the video."""
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._sink.take()

    def close(self) -> None:
        """Free the encoder, also in the middle of a video."""
        self._container.close()


def _fill(plane: Any, content: bytes) -> None:
    if plane.line_size == plane.width:
        plane.update(content)
        return
    # The rows of a plane are padded for the encoder's sake.
    padding = bytes(plane.line_size - plane.width)
    rows = (content[start : start + plane.width] for start in range(0, len(content), plane.width))
    plane.update(b"".join(row + padding for row in rows))
