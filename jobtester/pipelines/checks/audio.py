"""`audio`: the answer names a sound that decodes, lasts about as long as its text, and is not silent."""

from __future__ import annotations

import io
import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobtester.pipelines.checks import media
from jobtester.pipelines.checks.sample import Sample, Wrong

_SIGNATURES: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("wav", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WAVE"),
    ("flac", lambda head: head[:4] == b"fLaC"),
    ("ogg", lambda head: head[:4] == b"OggS"),
    ("mp3", lambda head: head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")),
)
_RATE = 8000  # samples/s that are enough to hear whether there is something
_SILENT = 32.0  # root mean square, of 32767
_MAX_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Params:
    """`path` leads to the sound, `text` names the parameter that was to be spoken.

    A text of n characters takes n / `rate` seconds; `least` and `most` times that are plausible.
    """

    path: str = "audio"
    text: str = "text"
    rate: float = 15.0
    least: float = 0.3
    most: float = 3.0

    def __post_init__(self) -> None:
        """Refuse values that no sound can meet."""
        if not (self.rate > 0 and 0 <= self.least < self.most):
            raise ValueError("rate is above 0, and least is below most")


def urls(answer: Any, params: Params) -> list[str]:
    """Give the sound's address."""
    return media.urls(answer, params.path)


def prepare() -> None:
    """Load the decoders."""
    import av.audio.resampler  # noqa: F401


def check(sample: Sample, params: Params) -> None:
    """Listen to the sound. Raises Wrong for the first thing that is not right."""
    content = media.content(sample, media.entries(sample.answer, params.path)[0], params.path)
    text = str(sample.expectation.parameters.get(params.text, ""))
    usual = len(text) / params.rate
    most = usual * params.most if text else _MAX_SECONDS
    seconds, loudness = decode(content, limit_s=most + 1)
    if text and not usual * params.least <= seconds <= most:
        shown = f"more than {most:.1f}" if seconds > most else f"{seconds:.2f}"
        raise Wrong("duration", f"the sound takes {shown} s, about {usual:.1f} s expected for {len(text)} characters")
    if loudness < _SILENT:
        raise Wrong("silent", f"the sound is silent: its level is {loudness:.1f} of 32767")


def decode(content: bytes, *, limit_s: float = _MAX_SECONDS) -> tuple[float, float]:
    """Decode up to `limit_s` seconds; give the seconds found and how loud they are (root mean square, of 32767)."""
    import av
    from av.audio.resampler import AudioResampler

    kind = next((name for name, fits in _SIGNATURES if fits(content[:12])), None)
    if kind is None:
        raise Wrong("not_audio", f"the file is no WAV, MP3, FLAC or Ogg: it begins with {content[:12]!r}")
    seconds, power, samples = 0.0, 0, 0
    with (
        media.decoding("sound", content),
        av.open(io.BytesIO(content), "r", format=kind, metadata_errors="ignore") as container,
    ):
        if not container.streams.audio:
            raise Wrong("no_stream", "the file has no sound in it")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise Wrong("codec", "the sound is written in a way that nobody knows")
        stream.codec_context.thread_count = 1
        resampler = AudioResampler(format="s16", layout="mono", rate=_RATE)
        for frame in container.decode(stream):
            seconds += frame.samples / frame.sample_rate
            for part in resampler.resample(frame):
                heard = array("h", bytes(part.planes[0])[: part.samples * 2])
                power += sum(value * value for value in heard)
                samples += len(heard)
            if seconds > limit_s:
                break
    if not seconds:
        raise Wrong("empty", "the sound has no samples")
    return seconds, math.sqrt(power / max(samples, 1))
