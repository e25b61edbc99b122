"""Decode a sound file like a player, and measure what is audible."""

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

# How each kind of file that players and browsers open begins, by the decoder's name for it. The decoder never guesses
# the kind itself: it knows hundreds of formats, and some of them read other files or open addresses.
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
# Chunks that a WAV usually has. By their names one is recognized that follows a chunk of odd length without padding.
_WAV_CHUNKS = (
    b"fmt ", b"data", b"LIST", b"fact", b"JUNK", b"junk", b"bext", b"cue ", b"smpl", b"inst", b"PEAK", b"iXML", b"id3 ",
    b"ID3 ", b"PAD ", b"FLLR", b"ds64", b"cart", b"_PMX", b"acid", b"DISP", b"note", b"labl", b"INFO",
)  # fmt: skip
_MAX_CHUNKS = 1000  # that are walked before the data
MAX_SECONDS = 600.0
RARE_FORMATS = ("au", "caf", "amr", "aiff")  # that not every browser plays
_FRAMED_FORMATS = ("mp3", "aac")  # made of independent frames: players go on behind a broken one
_MAX_BROKEN = 0.25  # share of packets that cannot be decoded, above which a framed file is damaged
RECORDING_RATE = 8000  # samples/s, enough to hear whether there is something, and what is said
_MAX_RECORDED_S = 60.0  # of which the length is measured, of a sound whose beginning is recorded
# A level is measured over 50 ms: longer than a period of the lowest voice, so that a steady tone has equal levels, and
# shorter than a syllable, so that speech has different ones.
_WINDOW_SAMPLES = RECORDING_RATE // 20
_FLOAT_TYPES = {"flt": "f", "fltp": "f", "dbl": "d", "dblp": "d"}
_MAX_NOT_FINITE = 0.01  # share of samples that may be NaN or infinite


@dataclass(frozen=True, slots=True)
class Sound:
    """What can be heard in a file. `levels` are the standard deviations of each 50 ms, of 32767.

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

    def active_s(self, min_level: float, min_share: float) -> float:
        """Return the seconds in which the level is at least `min_level` and this share of the highest level."""
        bound = max(min_level, min_share * max(self.levels, default=0.0))
        return sum(level >= bound for level in self.levels) * _WINDOW_SAMPLES / RECORDING_RATE


def decode_sound(content: bytes, *, limit_s: float = MAX_SECONDS) -> Sound:
    """Return up to `limit_s` seconds of a sound. Raises CheckFailedError for what no player plays."""
    form = _detect_form(content)
    if form == "wav":
        content = _pad_chunks(content)
    meter = _Meter()
    with decoding("sound", content):
        packets, broken = _measure_stream(content, form, meter, limit_s)
    if broken and (not meter.seconds or broken > packets * _MAX_BROKEN):
        raise CheckFailedError(
            "undecodable", f"the sound of {len(content)} bytes cannot be decoded: {broken} parts are damaged"
        )
    if not meter.seconds:
        raise CheckFailedError("empty", "the sound has no samples")
    if meter.not_finite > meter.samples * _MAX_NOT_FINITE:
        raise CheckFailedError(
            "not_finite", f"{meter.not_finite} of the sound's {meter.samples} samples are not numbers (NaN, infinity)"
        )
    return meter.to_sound(broken, form)


def record_beginning(content: bytes, seconds: float) -> tuple[array[int], float]:
    """Return the first `seconds` of a sound as 16-bit samples at RECORDING_RATE, and how long it lasts in seconds.

    Raises CheckFailedError for what no player plays.
    """
    form = _detect_form(content)
    recorder = _Recorder(int(seconds * RECORDING_RATE))
    with decoding("sound", content):
        _measure_stream(_pad_chunks(content) if form == "wav" else content, form, recorder, _MAX_RECORDED_S)
    if not recorder.recorded:
        raise CheckFailedError("empty", "the sound has no samples")
    return recorder.recorded, recorder.seconds


def _detect_form(content: bytes) -> str:
    form = next((name for name, matches in _SIGNATURES if matches(content[:12])), None)
    if form is None:
        raise CheckFailedError(
            "not_audio",
            f"the file is not WAV, MP3, FLAC, Ogg or any other sound: it begins with {repr(content[:12])[1:]}",
        )
    return form


def _pad_chunks(content: bytes) -> bytes:
    """Return a WAV with chunks of odd length padded, which some encoders forget, and players do not mind."""
    order: Literal["big", "little"] = "big" if content[:4] == b"RIFX" else "little"
    parts: list[bytes] = []
    position, copied = 12, 0
    for _ in range(_MAX_CHUNKS):
        if content[position : position + 4] in (b"data", b""):
            break
        length = int.from_bytes(content[position + 4 : position + 8], order)
        position += 8 + length
        is_unpadded = content[position : position + 4] in _WAV_CHUNKS
        if length % 2 and is_unpadded and content[position + 1 : position + 5] not in _WAV_CHUNKS:
            parts += [content[copied:position], b"\0"]
            copied = position
        else:
            position += length % 2
    return b"".join([*parts, content[copied:]]) if parts else content


def _measure_stream(content: bytes, form: str, meter: _Meter, limit_s: float) -> tuple[int, int]:
    """Decode into a meter; return the number of packets, and how many of them are broken."""
    import av

    packets = broken = 0
    with av.open(io.BytesIO(content), "r", format=form, metadata_errors="ignore") as container:
        if not container.streams.audio:
            raise CheckFailedError("no_stream", "the file has no sound in it")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise CheckFailedError("codec", "the sound has an unknown encoding")
        # Threads of the decoder would use up processor time side by side, and confuse the limit on it.
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            packets += 1
            try:
                frames = packet.decode()
            except (av.error.InvalidDataError, av.error.EOFError):
                if form not in _FRAMED_FORMATS:
                    raise
                broken += 1
                continue
            for frame in frames:
                meter.add(frame)
            if meter.seconds > limit_s:
                break
    meter.finish()
    return packets, broken


class _Meter:
    """Measures frames of sound, whose format may change on the way: files that were joined have several."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.samples = 0
        self.not_finite = 0
        self._to_16_bits: Any = None  # at the rate of the file
        self._to_low_rate: Any = None  # at which levels are measured
        self._format: tuple[str, str, int] | None = None
        self._counted = self._extreme = 0
        self._waiting = array("h")  # samples of a window that is not full yet
        self._levels: list[float] = []

    def add(self, frame: Any) -> None:
        """Measure one decoded frame."""
        from av.audio.resampler import AudioResampler

        frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if frame_format != self._format:
            self._flush()
            self._format = frame_format
            self._to_16_bits = AudioResampler(format="s16", layout="mono", rate=frame.sample_rate)
            self._to_low_rate = AudioResampler(format="s16", layout="mono", rate=RECORDING_RATE)
        self.seconds += frame.samples / frame.sample_rate
        self._silence_not_finite(frame)
        # Joined files start their clocks again, at which a resampler would take offense.
        frame.pts = None
        for part in self._to_16_bits.resample(frame):
            self._add_part(part)

    def finish(self) -> None:
        """Measure what is left in the resamplers."""
        self._flush()
        # The last window is rarely full. A quarter of it is enough to be measured, and less is taken only if there is
        # nothing else.
        if len(self._waiting) > _WINDOW_SAMPLES // 4 or not self._levels:
            self._levels.append(_deviation(self._waiting))

    def to_sound(self, broken: int, form: str) -> Sound:
        """Return what was measured."""
        return Sound(self.seconds, tuple(self._levels), self._extreme / max(self._counted, 1), broken, form)

    def _silence_not_finite(self, frame: Any) -> None:
        """Count samples that are NaN or infinite, and silence them: one would spread in the resampler."""
        code = _FLOAT_TYPES.get(frame.format.name)
        if code is None:
            return
        count = frame.samples if frame.format.is_planar else frame.samples * frame.layout.nb_channels
        for plane in frame.planes:
            raw = bytes(plane)
            values = array(code)
            values.frombytes(raw[: count * values.itemsize])
            self.samples += len(values)
            # One addition of all is far quicker than a look at each, and finite only if they all are.
            if math.isfinite(sum(values)):
                continue
            repaired = array(code, (value if math.isfinite(value) else 0.0 for value in values)).tobytes()
            self.not_finite += sum(not math.isfinite(value) for value in values)
            plane.update(repaired + bytes(len(raw) - len(repaired)))

    def _add_part(self, part: Any) -> None:
        # Samples at either end of the scale are counted by their high byte, which is quick. Here and not at the low
        # rate, because resampling rounds the ends off.
        high_bytes = bytes(part.planes[0])[: part.samples * 2][1::2]
        self._counted += len(high_bytes)
        self._extreme += high_bytes.count(0x7F) + high_bytes.count(0x80)
        part.pts = None
        self._add_levels(self._to_low_rate.resample(part))

    def _add_levels(self, parts: list[Any]) -> None:
        for part in parts:
            self._waiting.frombytes(bytes(part.planes[0])[: part.samples * 2])
        whole = len(self._waiting) // _WINDOW_SAMPLES * _WINDOW_SAMPLES
        for start in range(0, whole, _WINDOW_SAMPLES):
            self._levels.append(_deviation(self._waiting[start : start + _WINDOW_SAMPLES]))
        del self._waiting[:whole]

    def _flush(self) -> None:
        if self._format is None:
            return
        for part in self._to_16_bits.resample(None):
            self._add_part(part)
        self._add_levels(self._to_low_rate.resample(None))


class _Recorder(_Meter):
    """Measures frames, and records the first `max_samples` samples of them."""

    def __init__(self, max_samples: int) -> None:
        super().__init__()
        self.recorded = array("h")
        self._max_samples = max_samples

    def _add_levels(self, parts: list[Any]) -> None:
        for part in parts:
            missing = max(0, self._max_samples - len(self.recorded))
            self.recorded.frombytes(bytes(part.planes[0])[: 2 * min(part.samples, missing)])
        super()._add_levels(parts)


def _deviation(values: array[int]) -> float:
    """Return the standard deviation of samples.

    A root mean square would take a constant value, which nobody hears, for a loud sound.
    """
    count = len(values)
    if not count:
        return 0.0
    mean = sum(values) / count
    return math.sqrt(max(sum(value * value for value in values) / count - mean * mean, 0.0))
