"""`transcript`: the answer is what was said in the speech that was sent; times are only noted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import AssetMetadata, CheckFailedError, CheckInput, Expectation, NoteCollector
from jobtester.checks.text import split_words, word_error_rate
from jobtester.checks.untrusted_json import find_text, is_number, shorten
from jobtester.domain.reasons import Fault

_SLACK_S = 1.0
_JITTER_S = 0.2  # what every maker's rounding may come to
_MAX_CHUNKS = 2000
_JOIN_WER = 0.1
_MARKS = re.compile(r"<\|[^|<>]{0,30}\|>")  # of Whisper, for language, task and times


@dataclass(frozen=True, slots=True)
class Params:
    """`text` and `chunks` lead to the parts of the answer; `max_wer` is the highest word error rate that passes."""

    text: str = "text"
    chunks: str = "chunks"
    max_wer: float = 0.3

    def __post_init__(self) -> None:
        """Refuse a bound that would let everything pass."""
        if not 0 <= self.max_wer < 1:
            raise ValueError("max_wer is between 0 and 1")


def missing_inputs(_params: Params, expectation: Expectation) -> str:
    """Say what has to be known of the speech."""
    speech = expectation.sent_speech
    if speech is None or not split_words(speech.transcript):
        return "needs a transcript of the sound that is sent, in truth.toml beside it"
    return ""


def check(sample: CheckInput, params: Params) -> None:
    """Compare with the known transcript. Raises CheckFailedError for the first thing that is not right."""
    truth = sample.expectation.sent_speech
    if truth is None:
        raise CheckFailedError("no_truth", "no transcript is known of the sound that was sent", Fault.TESTER)
    said = split_words(truth.transcript)
    text = find_text(sample.answer, params.text, limit=4 * len(truth.transcript) + 200)
    heard = split_words(_MARKS.sub(" ", text))
    rate = word_error_rate(heard, said)
    if rate > params.max_wer:
        raise CheckFailedError("words", f"the word error rate is {rate:.2f}, above {params.max_wer:g}: {shorten(text)}")
    _check_chunks(_chunks(sample.answer, params.chunks), heard, truth, sample.notes)


def _chunks(answer: Any, name: str) -> Any:
    """Return the chunks, by the name that is configured or by the one of OpenAI and whisper.cpp; None without any."""
    table = answer if isinstance(answer, dict) else {}
    return next((table[key] for key in (name, "segments", "transcription") if table.get(key)), None)


def _check_chunks(chunks: Any, heard: list[str], truth: AssetMetadata, notes: NoteCollector) -> None:
    """Note what is odd about the times of chunks.

    Raises CheckFailedError where they say something else than the text.
    """
    if chunks is None:
        return
    if not isinstance(chunks, list) or len(chunks) > _MAX_CHUNKS:
        raise CheckFailedError("chunks", f"chunks is no list of at most {_MAX_CHUNKS}: it is {shorten(chunks)}")
    last = 0.0
    timed: list[tuple[float, str]] = []
    for index, chunk in enumerate(chunks):
        name = f"chunks.{index}"
        table = {"text": chunk} if isinstance(chunk, str) else chunk
        text = table.get("text", table.get("word")) if isinstance(table, dict) else 0
        if text is None:
            notes.add("chunk_text", f"{name} has no text: it is {shorten(chunk)}")
            text = ""
        if not isinstance(text, str):
            raise CheckFailedError("chunks", f"{name} has no text: it is {shorten(chunk)}")
        begin = _note_times(table, name, last, truth.duration_s, notes)
        timed.append((begin, text))
        last = max(last, begin)
    by_time = sorted(timed, key=lambda one: one[0])
    joined = [split_words(_MARKS.sub(" ", " ".join(text for _, text in order))) for order in (timed, by_time)]
    if all(len(one) > 2 * len(heard) + 4 or word_error_rate(one, heard) > _JOIN_WER for one in joined):
        shown = shorten(" ".join(joined[0]))
        raise CheckFailedError("chunks", f"the chunks do not join to the text, but to {shown}")


def _note_times(chunk: Mapping[str, Any], name: str, last: float, duration_s: float, notes: NoteCollector) -> float:
    """Note what is odd about the begin and end of a chunk, and return its begin, 0 where it has none."""
    times = chunk.get("timestamp", chunk.get("timestamps"))
    if times is None and ("start" in chunk or "end" in chunk):
        times = [chunk.get("start"), chunk.get("end")]
    if not isinstance(times, list) or len(times) != 2:
        notes.add("timestamps", f"{name}.timestamp is no pair: it is {shorten(times)}")
        return 0.0
    if not is_number(times[0]) or not (times[1] is None or is_number(times[1])):
        notes.add("timestamps", f"{name}.timestamp has no numbers: {shorten(times[0])}, {shorten(times[1])}")
        return 0.0
    begin, end = float(times[0]), float(times[0] if times[1] is None else times[1])
    if begin < -_JITTER_S or end < begin - _JITTER_S or begin < last - _JITTER_S:
        notes.add("order", f"{name} runs backwards: {begin:g} to {end:g} s after {last:g} s")
    if end > duration_s + _SLACK_S:
        notes.add("end", f"{name} ends at {end:g} s, the sound at {duration_s:g} s")
    return begin
