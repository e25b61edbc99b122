"""`audio`: the answer names a sound that decodes, has a duration that fits its text, and may be speech."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import CheckFailedError, CheckInput
from jobtester.checks.media import entry_content, entry_urls, find_entries
from jobtester.checks.sound import MAX_SECONDS, RARE_FORMATS, decode_sound

# Speech has pauses and syllables, so its levels vary by 0.5 to 1.5 of their mean; a tone or plain noise, which a worker
# without a model can send, by next to nothing. A few levels vary by accident, so a second of them is needed.
_MIN_VARIATION = 0.1
_MIN_LEVELS = 20
_MIN_LEVEL = 32.0  # of 32767, below which nobody hears anything
_PAUSE_LEVEL = 0.01  # of the highest level, 40 dB below it, below which a pause in speech is
_MAX_FULL_SCALE = 0.5  # share of samples at the ends of the scale that no speech reaches, however overdriven
_MIN_SPOKEN = 0.5  # share of the shortest plausible time in which something has to be heard
_SYLLABLE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff]")  # Chinese, Japanese, Korean
_EXTRA_LETTERS = 1.5  # that a syllable takes as long to say as, beyond the one letter that every character counts


@dataclass(frozen=True, slots=True)
class Params:
    """`path` is the path of the sound, `text` the parameter with the text to speak.

    The expected duration of n letters is n / `rate` seconds; a syllabic character counts as two and a half letters.
    `least` and `most` are the accepted multiples of it.
    """

    path: str = "audio"
    text: str = "text"
    rate: float = 15.0
    least: float = 0.3
    most: float = 3.0

    def __post_init__(self) -> None:
        if not (self.rate > 0 and 0 <= self.least < self.most):
            raise ValueError("rate is above 0, and least is below most")


def file_urls(answer: Any, params: Params) -> list[str]:
    """Return the address of the sound."""
    return entry_urls(answer, params.path)


def load_decoders() -> None:
    """Load the decoders."""
    import av.audio.resampler  # noqa: F401


def check(sample: CheckInput, params: Params) -> None:
    """Check the sound. Raises CheckFailedError for the first thing that is wrong."""
    content = entry_content(sample, find_entries(sample.answer, params.path)[0], params.path)
    text = str(sample.expectation.parameters.get(params.text, ""))
    usual_s = (len(text) + _EXTRA_LETTERS * len(_SYLLABLE.findall(text))) / params.rate
    min_s, max_s = usual_s * params.least, usual_s * params.most if text else MAX_SECONDS
    sound = decode_sound(content, limit_s=max_s + 1)
    if text and not min_s <= sound.seconds <= max_s:
        shown = f"more than {max_s:.1f}" if sound.seconds > max_s else f"{sound.seconds:.2f}"
        raise CheckFailedError(
            "duration", f"the sound lasts {shown} s, about {usual_s:.1f} s expected for {len(text)} characters"
        )
    if sound.loudness < _MIN_LEVEL:
        raise CheckFailedError("silent", f"the sound is silent: it moves by {sound.loudness:.1f} of 32767")
    if sound.full_scale > _MAX_FULL_SCALE:
        raise CheckFailedError(
            "full_scale", f"the sound is at full scale throughout: {sound.full_scale:.0%} of its samples are"
        )
    active_s = sound.active_s(_MIN_LEVEL, _PAUSE_LEVEL)
    if text and active_s < min_s * _MIN_SPOKEN:
        raise CheckFailedError("silent", f"the sound is silent but for {active_s:.2f} of its {sound.seconds:.2f} s")
    if text and len(sound.levels) >= _MIN_LEVELS and sound.variation < _MIN_VARIATION:
        raise CheckFailedError("steady", "the sound never varies, as only a tone or plain noise does")
    if sound.form in RARE_FORMATS:
        sample.notes.add("format", f"the sound is written as {sound.form.upper()}, which not all browsers play")
    if sound.broken:
        sample.notes.add("broken_frames", f"{sound.broken} parts of the sound are broken, which players skip")
