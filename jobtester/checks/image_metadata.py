"""Metadata: taking from a picture file what is not its pixels.

Decoders refuse files over limits of their own on texts, color profiles and counts of chunks, where browsers show the
picture. What is no part of the picture is left out before it is decoded, so that no such limit is met.
"""

from __future__ import annotations

_PNG = b"\x89PNG\r\n\x1a\n"
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_EXIF_MOST = 64 * 1024


def strip_metadata(content: bytes) -> bytes:
    """Return a PNG or JPEG without texts, profiles, EXIF and what follows its end; any other file as it is."""
    if content.startswith(_PNG):
        return _png(content)
    if content.startswith(b"\xff\xd8\xff"):
        return _jpeg(content)
    return content


def _png(content: bytes) -> bytes:
    kept, at = [_PNG], len(_PNG)
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        name = content[at + 4 : at + 8]
        if name in _NEEDED:
            kept.append(content[at:end])
        if name == b"IEND":
            break
        at = end
    return b"".join(kept)


def _jpeg(content: bytes) -> bytes:
    """Leave out the segments of applications before the pixels, but for JFIF's and Adobe's, which tell the colors."""
    kept, at = [content[:2]], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        mark = content[at + 1]
        if mark == 0xFF:  # filling
            at += 1
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if mark in (0xE0, 0xEE) or not (0xE0 <= mark <= 0xEF or mark == 0xFE):
            kept.append(content[at:end])
        at = end
    kept.append(content[at:])
    return b"".join(kept)


def is_rotated(content: bytes) -> bool:
    """Return True if a JPEG says that it is to be shown turned by a quarter."""
    if not content.startswith(b"\xff\xd8\xff"):
        return False
    from PIL import Image

    at = content.find(b"Exif\0\0", 0, _EXIF_MOST)
    if at < 0:
        return False
    exif = Image.Exif()
    try:
        exif.load(content[at : at + _EXIF_MOST])
        return exif.get(0x0112) in (5, 6, 7, 8)
    except Exception:  # whatever is wrong with it: then it says nothing
        return False
