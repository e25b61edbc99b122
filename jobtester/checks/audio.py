"""`audio`: the answer names a sound that decodes, lasts about as long as its text, and may be speech."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import CheckFailedError, CheckInput
from jobtester.checks.media import entry_content, entry_urls, find_entries
from jobtester.checks.sound import MAX_SECONDS, RARE, decode_sound

_STEADY = 0.1  # variation of the levels; that of speech is 0.5 to 1.5, since words have pauses and syllables
_MANY_LEVELS = 20  # levels of 50 ms from which on a variation means something
_SILENT = 32.0  # level, of 32767, below which nobody hears anything
_QUIET = 0.01  # share of the highest level, 40 dB below it, below which a pause in speech is
_FULL_SCALE = 0.5  # share of samples at the ends of the scale that no speech reaches, however overdriven
_SYLLABLE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff]")  # Chinese, Japanese, Korean
_MORE_LETTERS = 1.5  # that one of those takes, beside the one that any character takes
_SPOKEN = 0.5  # share of the shortest plausible time in which something has to be heard


@dataclass(frozen=True, slots=True)
class Params:
    """`path` leads to the sound, `text` names the parameter that was to be spoken.

    A text of n letters takes n / `rate` seconds, where a character that is a syllable counts as two and a half letters;
    `least` and `most` times that are plausible.
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


def file_urls(answer: Any, params: Params) -> list[str]:
    """Give the sound's address."""
    return entry_urls(answer, params.path)


def load_decoders() -> None:
    """Load the decoders."""
    import av.audio.resampler  # noqa: F401


def check(sample: CheckInput, params: Params) -> None:
    """Listen to the sound. Raises CheckFailedError for the first thing that is not right."""
    content = entry_content(sample, find_entries(sample.answer, params.path)[0], params.path)
    text = str(sample.expectation.parameters.get(params.text, ""))
    usual = (len(text) + _MORE_LETTERS * len(_SYLLABLE.findall(text))) / params.rate
    most = usual * params.most if text else MAX_SECONDS
    heard = decode_sound(content, limit_s=most + 1)
    seconds = heard.seconds
    if text and not usual * params.least <= seconds <= most:
        shown = f"more than {most:.1f}" if seconds > most else f"{seconds:.2f}"
        raise CheckFailedError(
            "duration", f"the sound takes {shown} s, about {usual:.1f} s expected for {len(text)} characters"
        )
    if heard.loudness < _SILENT:
        raise CheckFailedError("silent", f"the sound is silent: it moves by {heard.loudness:.1f} of 32767")
    if heard.full_scale > _FULL_SCALE:
        raise CheckFailedError(
            "full_scale", f"the sound is at full scale throughout: {heard.full_scale:.0%} of its samples are"
        )
    active = heard.active_s(_SILENT, _QUIET)
    if text and active < usual * params.least * _SPOKEN:
        raise CheckFailedError("silent", f"the sound is silent but for {active:.2f} of its {seconds:.2f} s")
    if text and len(heard.levels) >= _MANY_LEVELS and heard.variation < _STEADY:
        raise CheckFailedError("steady", "the sound never varies, as a tone or plain noise does: nobody speaks so")
    if heard.form in RARE:
        sample.notes.add("format", f"the sound is written as {heard.form.upper()}, which not all browsers play")
    if heard.broken:
        sample.notes.add("broken_frames", f"{heard.broken} parts of the sound are broken, which players skip")
