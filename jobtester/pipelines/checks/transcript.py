"""`transcript`: the answer is what was said in the speech that was sent, with timestamps in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobtester.domain.outcome import Fault
from jobtester.pipelines.checks import paths, words
from jobtester.pipelines.checks.sample import Expectation, Sample, Truth, Wrong

_SLACK_S = 1.0
_BACKWARDS_S = 0.05
_MAX_CHUNKS = 2000
_JOIN_WER = 0.1


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


def needs(_params: Params, expectation: Expectation) -> str:
    """Say what has to be known of the speech."""
    speech = expectation.speech()
    if speech is None or not words.of(speech.transcript):
        return "needs a transcript of the sound that is sent, in truth.toml beside it"
    return ""


def check(sample: Sample, params: Params) -> None:
    """Compare with the known transcript. Raises Wrong for the first thing that is not right."""
    truth = sample.expectation.speech()
    if truth is None:
        raise Wrong("no_truth", "no transcript is known of the sound that was sent", Fault.TESTER)
    said = words.of(truth.transcript)
    text = paths.text(sample.answer, params.text, limit=4 * len(truth.transcript) + 200)
    heard = words.of(text)
    rate = words.error_rate(heard, said)
    if rate > params.max_wer:
        raise Wrong("words", f"the word error rate is {rate:.2f}, above {params.max_wer:g}: {paths.show(text)}")
    chunks = sample.answer.get(params.chunks) if isinstance(sample.answer, dict) else None
    if chunks:
        _check_chunks(chunks, heard, truth)


def _check_chunks(chunks: Any, heard: list[str], truth: Truth) -> None:
    if not isinstance(chunks, list) or len(chunks) > _MAX_CHUNKS:
        raise Wrong("chunks", f"chunks is no list of at most {_MAX_CHUNKS}: it is {paths.show(chunks)}")
    last, joined = 0.0, []
    for index, chunk in enumerate(chunks):
        name = f"chunks.{index}"
        text = chunk.get("text") if isinstance(chunk, dict) else None
        if not isinstance(text, str):
            raise Wrong("chunks", f"{name} has no text: it is {paths.show(chunk)}")
        joined.append(text)
        last = _check_times(paths.find(chunk, "timestamp"), name, last, truth.duration_s)
    together = words.of(" ".join(joined))
    if len(together) > 2 * len(heard) + 4 or words.error_rate(together, heard) > _JOIN_WER:
        shown = paths.show(" ".join(together))
        raise Wrong("chunks", f"the chunks do not join to the text, but to {shown}")


def _check_times(times: Any, name: str, last: float, duration_s: float) -> float:
    """Check one chunk's begin and end, and give the begin; an end may be null."""
    if not isinstance(times, list) or len(times) != 2:
        raise Wrong("timestamps", f"{name}.timestamp is no pair: it is {paths.show(times)}")
    begin = paths.number(times[0], f"{name}.timestamp.0")
    end = begin if times[1] is None else paths.number(times[1], f"{name}.timestamp.1")
    if begin < 0 or end < begin - _BACKWARDS_S or begin < last - _BACKWARDS_S:
        raise Wrong("timestamps", f"{name} runs backwards: {begin:g} to {end:g} s after {last:g} s")
    if end > duration_s + _SLACK_S:
        raise Wrong("timestamps", f"{name} ends at {end:g} s, the sound at {duration_s:g} s")
    return begin
