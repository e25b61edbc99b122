"""Pictures, videos and sounds for tests, made on the spot: right ones, and wrong ones of every kind."""

from __future__ import annotations

import io
import math
import struct
import wave
import zlib
from functools import cache
from typing import Any

import av
from PIL import Image, ImageDraw


@cache
def picture(width: int, height: int, form: str = "PNG", mode: str = "RGB") -> bytes:
    """Draw something with contrast."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill=(220, 40, 30))
    return _encode_picture(image.convert(mode), form)


@cache
def flat_picture(width: int, height: int, color: str = "black", form: str = "PNG") -> bytes:
    """Draw nothing but one color."""
    return _encode_picture(Image.new("RGB", (width, height), color), form)


@cache
def deep_picture(width: int, height: int, *, flat: bool = False) -> bytes:
    """Draw a gradient in 16 bits of gray, all of it far above what 8 bits hold; or one gray alone."""
    rows = [struct.pack("<H", 5000 if flat else 1000 + 60_000 * y // height) * width for y in range(height)]
    return _encode_picture(Image.frombytes("I;16", (width, height), b"".join(rows)), "PNG")


def huge_png(width: int, height: int) -> bytes:
    """Return a few bytes of PNG whose header claims a size."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(bytes(1000)))
    )


@cache
def png_bomb(side: int) -> bytes:
    """Return a small PNG that is honestly enormous: all zeros."""
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(side * 3 + 1)) for _ in range(side)) + rows.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


@cache
def video(
    width: int = 1024,
    height: int = 576,
    frames: int = 25,
    fps: int = 6,
    *,
    codec: str = "libx264",
    moving: bool = True,
    flat: bool = False,
    form: str = "mp4",
) -> bytes:
    """Film a ball that crosses the picture."""
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec == "libx264":
            stream.options = {"preset": "ultrafast"}
        for index in range(frames):
            scene = Image.new("RGB", (width, height), (70, 130, 200))
            x = index * width // frames if moving else width // 3
            if not flat:
                ImageDraw.Draw(scene).ellipse((x, height // 3, x + height // 3, 2 * height // 3), fill=(200, 30, 30))
            frame = av.VideoFrame.from_image(scene)  # type: ignore[no-untyped-call]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


@cache
def sound(seconds: float, form: str = "wav", *, loud: float = 0.3, rate: int = 44_100) -> bytes:
    """Play a tone that comes and goes four times a second, as syllables do; `loud` 0 is silence."""
    count = int(seconds * rate)
    cycles = [
        b"".join(
            struct.pack("<h", int(32767 * loud * share * math.sin(2 * math.pi * index / 100))) for index in range(100)
        )
        for share in (0.1, 0.6, 1.0, 0.5)
    ]
    samples = b"".join(cycles[16 * at * 100 // rate % 4] for at in range(count // 100 + 1))[: 2 * count]
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return out.getvalue() if form == "wav" else _transcode(out.getvalue(), form)


def _transcode(content: bytes, form: str) -> bytes:
    out = io.BytesIO()
    codec = {"mp3": "libmp3lame", "flac": "flac", "ogg": "libvorbis", "mp4": "aac"}[form]
    with av.open(io.BytesIO(content), "r") as source, av.open(out, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=44_100, layout="mono")
        for frame in source.decode(audio=0):
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def _encode_picture(image: Image.Image, form: str) -> bytes:
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
