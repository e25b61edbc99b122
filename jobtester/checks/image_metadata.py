"""Strip from a picture file what is not its pixels.

Decoders refuse files over limits of their own on texts, color profiles and counts of chunks, where browsers show the
picture. What is not part of the picture is removed before it is decoded, so that no such limit is met.
"""

from __future__ import annotations

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MAX_EXIF_BYTES = 64 * 1024
_ORIENTATION = 0x0112  # the EXIF tag
_QUARTER_TURNS = (5, 6, 7, 8)


def strip_metadata(content: bytes) -> bytes:
    """Return a PNG or JPEG without texts, profiles, EXIF and what follows its end; any other file as it is."""
    if content.startswith(_PNG_SIGNATURE):
        return _strip_png(content)
    if content.startswith(_JPEG_SIGNATURE):
        return _strip_jpeg(content)
    return content


def _strip_png(content: bytes) -> bytes:
    parts, start = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while start + 8 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        name = content[start + 4 : start + 8]
        if name in _PIXEL_CHUNKS:
            parts.append(content[start:end])
        if name == b"IEND":
            break
        start = end
    return b"".join(parts)


def _strip_jpeg(content: bytes) -> bytes:
    parts, start = [content[:2]], 2
    # Up to the start of the scan, 0xDA: behind it are pixels.
    while start + 4 <= len(content) and content[start] == 0xFF and content[start + 1] != 0xDA:
        marker = content[start + 1]
        if marker == 0xFF:  # filling
            start += 1
            continue
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
        is_application = 0xE0 <= marker <= 0xEF or marker == 0xFE
        # The segments of JFIF and Adobe say how the colors are encoded, so they stay.
        if marker in (0xE0, 0xEE) or not is_application:
            parts.append(content[start:end])
        start = end
    parts.append(content[start:])
    return b"".join(parts)


def is_rotated(content: bytes) -> bool:
    """Return True if a JPEG says that it is to be shown turned by a quarter."""
    if not content.startswith(_JPEG_SIGNATURE):
        return False
    from PIL import Image

    start = content.find(b"Exif\0\0", 0, _MAX_EXIF_BYTES)
    if start < 0:
        return False
    exif = Image.Exif()
    try:
        exif.load(content[start : start + _MAX_EXIF_BYTES])
        return exif.get(_ORIENTATION) in _QUARTER_TURNS
    except Exception:  # Pillow raises nearly anything for broken EXIF, which viewers ignore
        return False
