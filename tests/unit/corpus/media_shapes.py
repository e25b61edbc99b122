"""Files as real encoders write them: odd containers, joined sounds, pictures with much beside pixels."""

from __future__ import annotations

import io
import math
import random
import struct
import tempfile
import zlib
from array import array
from functools import cache
from pathlib import Path
from typing import Any

import av
from PIL import Image

from tests.unit.corpus import media_factory as make

RATE = 44_100


def wav(
    data: bytes, *, tag: int = 1, bits: int = 16, before: bytes = b"",
    size: int | None = None, head: bytes = b"RIFF", extra: bytes = b"", after: bytes = b"",
) -> bytes:  # fmt: skip
    """Return a mono WAV; `before` are chunks before its format, `extra` continues it, `size` is what data claims."""
    align = bits // 8
    form = struct.pack("<HHIIHH", tag, 1, RATE, RATE * align, align, bits) + extra
    claimed = len(data) if size is None else size
    whole = before + b"fmt " + struct.pack("<I", len(form)) + form
    whole += after + b"data" + struct.pack("<I", claimed) + data
    total = 0xFFFFFFFF if claimed == 0xFFFFFFFF else len(whole) + 4
    return head + struct.pack("<I", total) + b"WAVE" + whole


def chunk(name: bytes, content: bytes) -> bytes:
    """Write a chunk of a RIFF file, padded to an even length."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


@cache
def pcm(seconds: float) -> bytes:
    """Return 16-bit samples of a tone."""
    return make.sound(seconds)[44:]


def rf64(seconds: float, head: bytes = b"RF64") -> bytes:
    """Write the WAV that has its sizes in 64 bits."""
    data = pcm(seconds)
    sizes = chunk(b"ds64", struct.pack("<QQQI", len(data) + 72, len(data), len(data) // 2, 0))
    return wav(data, head=head, before=sizes, size=0xFFFFFFFF)


def samples(code: str, values: Any) -> bytes:
    """Pack numbers as `array` does."""
    return array(code, values).tobytes()


def tone(seconds: float, level: float = 0.3) -> list[float]:
    """Return a tone that comes and goes as syllables do, as numbers from -1 to 1."""
    return [
        level * (0.55 + 0.45 * math.sin(8 * math.pi * index / RATE)) * math.sin(index / 9)
        for index in range(int(seconds * RATE))
    ]


def steady(seconds: float, level: float = 0.3, *, noise: bool = False) -> list[float]:
    """Return a tone or noise that never varies, as numbers from -1 to 1."""
    chance = random.Random(1)
    return [level * (chance.uniform(-1, 1) if noise else math.sin(index / 9)) for index in range(int(seconds * RATE))]


def square(seconds: float) -> list[int]:
    """Return samples that are at one end of the scale or the other, never between."""
    return [32767 if index // 60 % 2 else -32768 for index in range(int(seconds * RATE))]


def quiet_but(seconds: float, loud: range, level: int = 30_000) -> list[int]:
    """Return silence with a burst in it."""
    chance = random.Random(1)
    return [chance.randrange(-level, level) if index in loud else 0 for index in range(int(seconds * RATE))]


@cache
def sound(
    seconds: float, form: str, codec: str, *, layout: str = "mono", rate: int = RATE, format_: str = "fltp"
) -> bytes:
    """Encode a tone."""
    out = io.BytesIO()
    with av.open(io.BytesIO(make.sound(seconds)), "r") as source, av.open(out, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        resampler = av.AudioResampler(format=format_, layout=layout, rate=rate)
        for frame in source.decode(audio=0):
            for part in resampler.resample(frame):
                part.pts = None
                container.mux(stream.encode(part))
        container.mux(stream.encode())
    return out.getvalue()


@cache
def film(codec: str = "libx264", form: str = "mp4", *, options: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Film a moving ball, 25 frames of 1024×576."""
    out = tempfile.NamedTemporaryFile()  # noqa: SIM115 - some forms are written twice, which takes a file with a name
    with (
        out,
        av.open(io.BytesIO(make.video()), "r") as source,
        av.open(out.name, "w", format=form, options=dict(options)) as container,
    ):
        stream: Any = container.add_stream(codec, rate=6)
        stream.width, stream.height, stream.pix_fmt = 1024, 576, "yuv420p"
        quick = {"libx264": "ultrafast", "libx265": "ultrafast", "libsvtav1": "12"}
        stream.options = {"preset": quick[codec]} if codec in quick else {"deadline": "realtime", "cpu-used": "8"}
        for frame in source.decode(video=0):
            frame.pict_type = 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        container.close()
        return Path(out.name).read_bytes()


def box(name: bytes, content: bytes = b"") -> bytes:
    """Write a box of an MP4."""
    return struct.pack(">I", len(content) + 8) + name + content


def rotate_mp4(content: bytes, degrees: int) -> bytes:
    """Return an MP4 that says by its matrix that a player turns its pictures clockwise."""
    rows = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    changed = bytearray(content)
    at = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in rows)
    changed[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return bytes(changed)


def unpadded_chunk(name: bytes, content: bytes) -> bytes:
    """Write a chunk of a RIFF file of an odd length without its padding."""
    return name + struct.pack("<I", len(content)) + content


def prepend_to_mp4(content: bytes, before: bytes) -> bytes:
    """Put bytes before an MP4, and correct the places that it names."""
    moved = bytearray(before + content)
    at = moved.find(b"stco") + 8
    for index in range(int.from_bytes(moved[at : at + 4], "big")):
        place = at + 4 + 4 * index
        moved[place : place + 4] = (int.from_bytes(moved[place : place + 4], "big") + len(before)).to_bytes(4, "big")
    return bytes(moved)


def png_with(content: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Put chunks into a PNG, behind its header."""
    added = b"".join(
        struct.pack(">I", len(each)) + name + each + struct.pack(">I", zlib.crc32(name + each)) for name, each in chunks
    )
    return content[:33] + added + content[33:]


def save(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """Write a picture."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def draw(mode: str = "RGB", side: int = 512) -> Image.Image:
    """Draw something with contrast."""
    with Image.open(io.BytesIO(make.picture(side, side))) as picture:
        return picture.convert(mode)


def draw_translucent(alpha: int, side: int = 512) -> Image.Image:
    """Draw something that can be seen through, down to alpha 0."""
    picture = draw("RGBA", side)
    picture.putalpha(alpha)
    return picture


def write_interlaced_png(side: int = 512) -> bytes:
    """Write a PNG in seven passes, of gray in steps."""
    rows = b""
    for x0, y0, dx, dy in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        for y in range(y0, side, dy):
            rows += b"\0" + bytes((x // 2 + y // 4) & 255 for x in range(x0, side, dx))
    whole = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 1)
    for name, content in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        whole += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return whole
