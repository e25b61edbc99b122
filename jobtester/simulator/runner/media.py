"""The images, videos and audio files that simulated models produce. They take long to make: call in a thread."""

from __future__ import annotations

import io
import math
import struct
import wave
import zlib
from functools import lru_cache

_SAMPLE_RATE = 44_100
_BOMB_SIDE = 20_000


@lru_cache(maxsize=64)
def create_image(width: int, height: int, *, blank: bool = False) -> bytes:
    """Return a PNG of that size: gradients, or one flat color."""
    from PIL import Image

    if blank:
        image = Image.new("RGB", (width, height), (127, 127, 127))
    else:
        linear = Image.linear_gradient("L").resize((width, height))
        radial = Image.radial_gradient("L").resize((width, height))
        image = Image.merge("RGB", (linear, radial, linear.transpose(Image.Transpose.FLIP_TOP_BOTTOM)))
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


@lru_cache(maxsize=1)
def create_decompression_bomb() -> bytes:
    """Return a small PNG that decodes to 20000×20000 pixels."""
    compressor = zlib.compressobj(9)
    row = bytes(1 + _BOMB_SIDE // 8)
    data = b"".join(compressor.compress(row) for _ in range(_BOMB_SIDE)) + compressor.flush()
    header = struct.pack(">IIBBBBB", _BOMB_SIDE, _BOMB_SIDE, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@lru_cache(maxsize=32)
def create_video(width: int, height: int, *, fps: int, frames: int, flat: bool = False) -> bytes:
    """Return an H.264 mp4 in which a bar moves; if `flat`, nothing moves."""
    import av
    from PIL import Image

    base = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    bar = Image.new("RGB", (max(2, width // 8), height), (200, 40, 40))
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            image = base.copy()
            if not flat:
                image.paste(bar, (index * width // frames, 0))
            frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


@lru_cache(maxsize=64)
def create_audio(tenths: int, *, silent: bool = False) -> bytes:
    """Return a mono 44.1 kHz WAV of `tenths` of a second: a tone of wavering loudness, or silence."""
    count = _SAMPLE_RATE * tenths // 10
    if silent:
        samples = bytes(2 * count)
    else:
        angles = (2 * math.pi * index / _SAMPLE_RATE for index in range(_SAMPLE_RATE))
        levels = (int(9000 * math.sin(220 * angle) * (0.6 + 0.4 * math.sin(4 * angle))) for angle in angles)
        second = struct.pack(f"<{_SAMPLE_RATE}h", *levels)
        samples = (second * (tenths // 10 + 1))[: 2 * count]
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_SAMPLE_RATE)
        file.writeframes(samples)
    return out.getvalue()
