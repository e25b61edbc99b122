"""`transcript`: the answer is the transcript of the speech; wrong timestamps are only a note."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import AssetMetadata, CheckFailedError, CheckInput, Expectation, NoteCollector
from jobtester.checks.text import split_words, word_error_rate
from jobtester.checks.untrusted_json import find_text, is_number, shorten
from jobtester.domain.reasons import Fault

_END_SLACK_S = 1.0
_JITTER_S = 0.2  # that rounding may come to in any server
_MAX_CHUNKS = 2000
_MAX_JOINED_WER = 0.1  # chunks may split words otherwise than the text does, and no more
_WHISPER_MARKS = re.compile(r"<\|[^|<>]{0,30}\|>")  # for language, task and times


@dataclass(frozen=True, slots=True)
class Params:
    """`text` and `chunks` are paths in the answer; `max_wer` is the highest word error rate that passes."""

    text: str = "text"
    chunks: str = "chunks"
    max_wer: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.max_wer < 1:
            raise ValueError("max_wer is between 0 and 1")


def missing_inputs(_params: Params, expectation: Expectation) -> str:
    """Return what the check would have to know of the speech and does not, empty if nothing."""
    speech = expectation.sent_speech
    if speech is None or not split_words(speech.transcript):
        return "needs a transcript of the sound that is sent, in truth.toml beside it"
    return ""


def check(sample: CheckInput, params: Params) -> None:
    """Compare with the known transcript. Raises CheckFailedError for the first thing that is wrong."""
    speech = sample.expectation.sent_speech
    if speech is None:
        raise CheckFailedError("no_truth", "no transcript is known of the sound that was sent", Fault.TESTER)
    # The time of the comparison grows with both lengths, so the answer's is bounded. No right transcript is nearly
    # four times as long.
    text = find_text(sample.answer, params.text, limit=4 * len(speech.transcript) + 200)
    heard = _split_transcript(text)
    rate = word_error_rate(heard, split_words(speech.transcript))
    if rate > params.max_wer:
        raise CheckFailedError("words", f"the word error rate is {rate:.2f}, above {params.max_wer:g}: {shorten(text)}")
    # OpenAI calls them segments, whisper.cpp transcription.
    table = sample.answer if isinstance(sample.answer, dict) else {}
    chunks = next((table[key] for key in (params.chunks, "segments", "transcription") if table.get(key)), None)
    if chunks is not None:
        _check_chunks(chunks, heard, speech, sample.notes)


def _check_chunks(chunks: Any, heard: list[str], speech: AssetMetadata, notes: NoteCollector) -> None:
    """Check that the chunks say what the text says, and record notes on odd times."""
    if not isinstance(chunks, list) or len(chunks) > _MAX_CHUNKS:
        raise CheckFailedError("chunks", f"chunks is not a list of at most {_MAX_CHUNKS}: it is {shorten(chunks)}")
    latest = 0.0
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
        start = _note_times(table, name, latest, speech.duration_s, notes)
        timed.append((start, text))
        latest = max(latest, start)
    # Chunks may be listed in the order in which they were finished, so either order is right.
    by_time = sorted(timed, key=lambda item: item[0])
    joined = [_split_transcript(" ".join(text for _, text in order)) for order in (timed, by_time)]
    if all(len(words) > 2 * len(heard) + 4 or word_error_rate(words, heard) > _MAX_JOINED_WER for words in joined):
        raise CheckFailedError("chunks", f"the chunks do not join to the text, but to {shorten(' '.join(joined[0]))}")


def _note_times(chunk: Mapping[str, Any], name: str, latest: float, duration_s: float, notes: NoteCollector) -> float:
    """Return the start of a chunk in seconds, 0 if it has none, and record notes on odd times."""
    times = chunk.get("timestamp", chunk.get("timestamps"))
    if times is None and ("start" in chunk or "end" in chunk):
        times = [chunk.get("start"), chunk.get("end")]
    if not isinstance(times, list) or len(times) != 2:
        notes.add("timestamps", f"{name}.timestamp is not a pair: it is {shorten(times)}")
        return 0.0
    # Whisper leaves the end of the last chunk open.
    if not is_number(times[0]) or not (times[1] is None or is_number(times[1])):
        notes.add("timestamps", f"{name}.timestamp has no numbers: {shorten(times[0])}, {shorten(times[1])}")
        return 0.0
    start, end = float(times[0]), float(times[0] if times[1] is None else times[1])
    if start < -_JITTER_S or end < start - _JITTER_S or start < latest - _JITTER_S:
        notes.add("order", f"{name} runs backwards: {start:g} to {end:g} s after {latest:g} s")
    if end > duration_s + _END_SLACK_S:
        notes.add("end", f"{name} ends at {end:g} s, the sound at {duration_s:g} s")
    return start


def _split_transcript(text: str) -> list[str]:
    return split_words(_WHISPER_MARKS.sub(" ", text))
