"""Make what an answer brought small enough to keep: a picture of at most 320 pixels, or the beginning of a sound.

Everything is decoded and encoded again, so nothing that a stranger wrote is ever served to a browser. It runs in the
worker that has just checked the answer.
"""

from __future__ import annotations

import hashlib
import io
import wave
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobtester.checks.answer_body import parse_answer
from jobtester.checks.base import Check, CheckInput, NoteCollector
from jobtester.checks.evaluation import CheckTask
from jobtester.checks.image import decode_image
from jobtester.checks.media import entry_content, find_entries
from jobtester.checks.sound import RECORDING_RATE, record_beginning
from jobtester.checks.video import decode_first_frame
from jobtester.domain.result_details import ReceivedFile

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 320  # pixels
_QUALITIES = (75, 55, 35)  # of JPEG, until the picture is small enough
_CLIP_SECONDS = 6.0
_WAV_HEADER_BYTES = 44


def make_preview(task: CheckTask, max_bytes: int) -> ReceivedFile | None:
    """Return the first file of an answer, encoded again and small; None if it has none or it cannot be decoded.

    Raises whatever decoding a stranger's file may raise.
    """
    kinds = [(kind, check) for check in task.expectation.checks if (kind := _media_kind(check))]
    if not kinds:
        return None
    kind, check = kinds[0]
    answer = parse_answer(task.body, stream=task.expectation.is_streamed, chat=False, notes=NoteCollector())
    sample = CheckInput(answer, task.expectation, task.files or {})
    content = entry_content(sample, find_entries(answer, check.params.path)[0], check.params.path)
    return _MAKERS[kind](content, max_bytes)


def has_media(task: CheckTask) -> bool:
    """Return True if the answer should bring a picture, a video or a sound."""
    return any(_media_kind(check) for check in task.expectation.checks)


def _media_kind(check: Check) -> str:
    kind = getattr(check.params, "is_", "") if check.name == "json" else check.name
    return kind if kind in _MAKERS else ""


def _preview_image(content: bytes, max_bytes: int) -> ReceivedFile | None:
    return _encode_picture(content, decode_image(content), max_bytes)


def _preview_video(content: bytes, max_bytes: int) -> ReceivedFile | None:
    return _encode_picture(content, decode_first_frame(content), max_bytes)


def _encode_picture(content: bytes, picture: Image, max_bytes: int) -> ReceivedFile | None:
    from PIL import Image

    width, height = picture.size
    small = picture.convert("RGBA") if picture.has_transparency_data else picture.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    plain = Image.new("RGB", small.size, "white")
    plain.paste(small, mask=small if small.mode == "RGBA" else None)
    for quality in _QUALITIES:
        file = io.BytesIO()
        plain.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= max_bytes:
            return ReceivedFile("image/jpeg", file.getvalue(), _digest(content), len(content), width, height)
    return None


def _preview_audio(content: bytes, max_bytes: int) -> ReceivedFile | None:
    seconds = min(_CLIP_SECONDS, (max_bytes - _WAV_HEADER_BYTES) / RECORDING_RATE)
    if seconds <= 0:
        return None
    samples, total_s = record_beginning(content, seconds)
    file = io.BytesIO()
    with wave.open(file, "wb") as clip:
        clip.setnchannels(1)
        clip.setsampwidth(1)
        clip.setframerate(RECORDING_RATE)
        # 8-bit samples of a WAV are unsigned.
        clip.writeframes(bytes((sample >> 8) + 128 for sample in samples))
    return ReceivedFile("audio/wav", file.getvalue(), _digest(content), len(content), seconds=round(total_s, 3))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_MAKERS: dict[str, Callable[[bytes, int], ReceivedFile | None]] = {
    "image": _preview_image,
    "video": _preview_video,
    "audio": _preview_audio,
}
