"""Sound: decoding a sound file as a player does, and measuring what can be heard in it."""

from __future__ import annotations

import io
import math
import statistics
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jobtester.checks.base import CheckFailedError
from jobtester.checks.media import decoding

# The begin of each kind of file that players and browsers open, by the name that the decoder has for it.
_SIGNATURES: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("wav", lambda head: head[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX") and head[8:12] == b"WAVE"),
    ("flac", lambda head: head[:4] == b"fLaC"),
    ("ogg", lambda head: head[:4] == b"OggS"),
    ("mov", lambda head: head[4:8] == b"ftyp"),
    ("matroska", lambda head: head[:4] == b"\x1a\x45\xdf\xa3"),
    ("aiff", lambda head: head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")),
    ("aac", lambda head: head[:1] == b"\xff" and head[1:2] in (b"\xf0", b"\xf1", b"\xf8", b"\xf9")),
    ("au", lambda head: head[:4] == b".snd"),
    ("caf", lambda head: head[:4] == b"caff"),
    ("amr", lambda head: head[:5] == b"#!AMR"),
    ("mp3", lambda head: head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")),
)
# Chunks that a WAV usually has, by which one is found that follows an odd one directly.
_CHUNKS = (
    b"fmt ", b"data", b"LIST", b"fact", b"JUNK", b"junk", b"bext", b"cue ", b"smpl", b"inst", b"PEAK", b"iXML", b"id3 ",
    b"ID3 ", b"PAD ", b"FLLR", b"ds64", b"cart", b"_PMX", b"acid", b"DISP", b"note", b"labl", b"INFO",
)  # fmt: skip
_MOST_CHUNKS = 1000  # before the data, that are looked at
MAX_SECONDS = 600.0
RARE = ("au", "caf", "amr", "aiff")  # what not every browser plays
_FRAMED = ("mp3", "aac")  # made of frames that stand alone: players go on behind a broken one
_MOST_BROKEN = 0.25  # share of packets that cannot be decoded, above which a framed file is damaged
_RATE = 8000  # samples/s that are enough to hear whether there is something
_WINDOW = 400  # samples of those, 50 ms
_FLOATS = {"flt": "f", "fltp": "f", "dbl": "d", "dblp": "d"}
_MOST_MISSING = 0.01  # share of samples that may be no numbers


@dataclass(frozen=True, slots=True)
class Sound:
    """What was heard. `levels` are the standard deviations of each 50 ms, of 32767: a constant value has none.

    `full_scale` is the share of samples at either end of the scale, `broken` how many packets were skipped, `form` the
    kind of file.
    """

    seconds: float
    levels: tuple[float, ...]
    full_scale: float
    broken: int
    form: str

    @property
    def loudness(self) -> float:
        """Return the root mean square of the levels."""
        return math.sqrt(sum(level * level for level in self.levels) / max(len(self.levels), 1))

    @property
    def variation(self) -> float:
        """Return the standard deviation of the levels by their mean: about 1 for speech, near 0 for a tone or noise."""
        mean = statistics.fmean(self.levels) if self.levels else 0.0
        return statistics.pstdev(self.levels) / mean if mean else 0.0

    def active_s(self, least: float, share: float) -> float:
        """Return the seconds in which the level is above `least` and above this share of the highest level."""
        bound = max(least, share * max(self.levels, default=0.0))
        return sum(level >= bound for level in self.levels) * _WINDOW / _RATE


def decode_sound(content: bytes, *, limit_s: float = MAX_SECONDS) -> Sound:
    """Decode up to `limit_s` seconds. Raises CheckFailedError for what no player plays."""
    kind = next((name for name, fits in _SIGNATURES if fits(content[:12])), None)
    if kind is None:
        raise CheckFailedError(
            "not_audio", f"the file is no WAV, MP3, FLAC or Ogg, nor any other sound: it begins with {content[:12]!r}"
        )
    if kind == "wav":
        content = _filled_up(content)
    ear = _Meter()
    with decoding("sound", content):
        packets, broken = _listen(content, kind, ear, limit_s)
    if broken and (not ear.seconds or broken > packets * _MOST_BROKEN):
        raise CheckFailedError(
            "undecodable", f"the sound of {len(content)} bytes cannot be decoded: {broken} parts are damaged"
        )
    if not ear.seconds:
        raise CheckFailedError("empty", "the sound has no samples")
    if ear.missing > ear.samples * _MOST_MISSING:
        raise CheckFailedError(
            "not_finite", f"{ear.missing} of the sound's {ear.samples} samples are no numbers (NaN, infinity)"
        )
    return ear.sound(broken, kind)


def _filled_up(content: bytes) -> bytes:
    """Return a WAV whose chunks of odd length before its data are filled up, which some makers forget."""
    order: Literal["big", "little"] = "big" if content[:4] == b"RIFX" else "little"
    parts: list[bytes] = []
    at, copied = 12, 0
    for _ in range(_MOST_CHUNKS):
        if content[at : at + 4] in (b"data", b""):
            break
        length = int.from_bytes(content[at + 4 : at + 8], order)
        at += 8 + length
        if length % 2 and content[at : at + 4] in _CHUNKS and content[at + 1 : at + 5] not in _CHUNKS:
            parts += [content[copied:at], b"\0"]
            copied = at
        else:
            at += length % 2
    return b"".join([*parts, content[copied:]]) if parts else content


def _listen(content: bytes, kind: str, ear: _Meter, limit_s: float) -> tuple[int, int]:
    """Decode into a meter; return how many packets there were, and how many of them were broken."""
    import av

    packets = broken = 0
    with av.open(io.BytesIO(content), "r", format=kind, metadata_errors="ignore") as container:
        if not container.streams.audio:
            raise CheckFailedError("no_stream", "the file has no sound in it")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise CheckFailedError("codec", "the sound is written in a way that nobody knows")
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            packets += 1
            try:
                frames = packet.decode()
            except (av.error.InvalidDataError, av.error.EOFError):
                if kind not in _FRAMED:
                    raise
                broken += 1
                continue
            for frame in frames:
                ear.hear(frame)
            if ear.seconds > limit_s:
                break
    ear.end()
    return packets, broken


class _Meter:
    """Measures frames of sound, whose form may change on the way: files that were joined have several."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.samples = 0
        self.missing = 0
        self._whole: Any = None  # to 16 bits, at the rate of the file
        self._coarse: Any = None  # to the rate at which levels are measured
        self._form: tuple[str, str, int] | None = None
        self._counted = self._extreme = 0
        self._waiting = array("h")
        self._levels: list[float] = []

    def hear(self, frame: Any) -> None:
        """Take one decoded frame."""
        from av.audio.resampler import AudioResampler

        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            self._flush()
            self._form = form
            self._whole = AudioResampler(format="s16", layout="mono", rate=frame.sample_rate)
            self._coarse = AudioResampler(format="s16", layout="mono", rate=_RATE)
        self.seconds += frame.samples / frame.sample_rate
        self._repair(frame)
        frame.pts = None
        for part in self._whole.resample(frame):
            self._count(part)
            part.pts = None
            self._measure(self._coarse.resample(part))

    def end(self) -> None:
        """Take what is left in the resamplers."""
        self._flush()
        if len(self._waiting) > _WINDOW // 4 or not self._levels:
            self._levels.append(_deviation(self._waiting))

    def sound(self, broken: int, form: str) -> Sound:
        """Return what was measured."""
        return Sound(self.seconds, tuple(self._levels), self._extreme / max(self._counted, 1), broken, form)

    def _repair(self, frame: Any) -> None:
        """Count samples that are no numbers, and silence them: one would spread in the resampler."""
        code = _FLOATS.get(frame.format.name)
        if code is None:
            return
        planar = frame.format.is_planar
        count = frame.samples if planar else frame.samples * frame.layout.nb_channels
        for plane in frame.planes:
            raw = bytes(plane)
            values = array(code)
            values.frombytes(raw[: count * values.itemsize])
            self.samples += len(values)
            if math.isfinite(sum(values)):
                continue
            fixed = array(code, (value if math.isfinite(value) else 0.0 for value in values)).tobytes()
            self.missing += sum(not math.isfinite(value) for value in values)
            plane.update(fixed + bytes(len(raw) - len(fixed)))

    def _count(self, part: Any) -> None:
        """Count samples at either end of the scale, by the high byte of each, which is quick."""
        high = bytes(part.planes[0])[: part.samples * 2][1::2]
        self._counted += len(high)
        self._extreme += high.count(0x7F) + high.count(0x80)

    def _measure(self, parts: list[Any]) -> None:
        for part in parts:
            self._waiting.frombytes(bytes(part.planes[0])[: part.samples * 2])
        whole = len(self._waiting) // _WINDOW * _WINDOW
        for at in range(0, whole, _WINDOW):
            self._levels.append(_deviation(self._waiting[at : at + _WINDOW]))
        del self._waiting[:whole]

    def _flush(self) -> None:
        if self._form is None:
            return
        for part in self._whole.resample(None):
            self._count(part)
            part.pts = None
            self._measure(self._coarse.resample(part))
        self._measure(self._coarse.resample(None))


def _deviation(values: array[int]) -> float:
    count = len(values)
    if not count:
        return 0.0
    mean = sum(values) / count
    return math.sqrt(max(sum(value * value for value in values) / count - mean * mean, 0.0))
