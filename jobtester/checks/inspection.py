"""Inspection: what a test input of one's own is, before it is sent to anybody."""

from __future__ import annotations

from typing import Any

from jobtester.checks import audio
from jobtester.checks.base import CheckFailedError
from jobtester.checks.image import decode_image, pixel_digest

PICTURES = ("PNG", "JPEG", "GIF")
SOUNDS = ("wav", "flac", "mp3", "ogg")


def inspect_media(content: bytes, kind: str) -> dict[str, Any]:
    """Decode a picture or a sound; give its sizes in pixels or seconds, or under `problem` why it must not be sent."""
    try:
        if kind == "image":
            picture = decode_image(content)
            if (picture.format or "").replace("MPO", "JPEG") not in PICTURES:
                return {"problem": f"is {picture.format}; gateways take PNG, JPEG and GIF only"}
            return {"width": picture.width, "height": picture.height, "pixels": pixel_digest(picture)}
        sound = audio.decode(content)
    except CheckFailedError as wrong:
        return {"problem": wrong.message}
    seconds = sound.seconds
    if sound.form not in SOUNDS:
        return {"problem": f"is {sound.form}; gateways are safe with WAV, FLAC and MP3 only"}
    if seconds < 1:
        return {"problem": f"takes {seconds:.2f} s; gateways take nothing below 1 s"}
    return {"duration_s": round(seconds, 3)}
