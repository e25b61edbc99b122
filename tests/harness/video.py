"""Make and repack short videos for tests, without waiting for real time."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import av

from jobtester.video.encoder import Encoder, Planes
from jobtester.video.pattern import VideoFormat

SMALL = VideoFormat(128, 128, 24)


def encode(
    form: VideoFormat, count: int, container: str = "mpegts", *, draw: Callable[[int], Planes] | None = None
) -> list[bytes]:
    """Return what each of `count` frames adds to a video, and its end; frames of the pattern, or drawn by `draw`."""
    encoder = Encoder(form, container, draw)
    return [*(encoder.encode(number)[0] for number in range(count)), encoder.finish()]


def repack(content: bytes, container: str) -> bytes:
    """Return a video in another container, as gateways repack it with ffmpeg."""
    out = io.BytesIO()
    sink = _Unseekable(out)
    with av.open(io.BytesIO(content), "r") as source, av.open(sink, "w", format=container) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return out.getvalue()


def count_frames(content: bytes) -> int:
    """Return how many frames a video has, by a decoder that is not the tester's."""
    with av.open(io.BytesIO(content), "r") as container:
        return sum(1 for _ in container.decode(video=0))


class _Unseekable:
    def __init__(self, out: io.BytesIO) -> None:
        self._out = out

    def write(self, data: Any) -> int:
        return self._out.write(data)


def add_sound(content: bytes, container: str) -> bytes:
    """Return a video with a silent sound beside it."""
    out = io.BytesIO()
    with av.open(io.BytesIO(content), "r") as source, av.open(_Unseekable(out), "w", format=container) as target:
        video = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("aac", rate=44_100)
        played = 0
        for packet in source.demux(video=0):
            if packet.dts is None or packet.time_base is None:
                continue
            shown_s = float(packet.dts * packet.time_base)
            packet.stream = video
            target.mux(packet)
            while played < shown_s * 44_100:
                silence = av.AudioFrame("fltp", "stereo", 1024)
                silence.sample_rate, silence.pts = 44_100, played
                for plane in silence.planes:
                    plane.update(bytes(plane.buffer_size))
                target.mux(sound.encode(silence))
                played += 1024
        target.mux(sound.encode())
    return out.getvalue()


def split_flv(content: bytes) -> list[bytes]:
    """Return the header and the tags of an FLV file."""
    parts, place = [content[:13]], 13
    while place < len(content):
        end = place + int.from_bytes(content[place + 1 : place + 4], "big") + 15
        parts.append(content[place:end])
        place = end
    return parts
