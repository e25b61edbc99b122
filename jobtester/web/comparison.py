"""Compare the words that were expected with those that came back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import orjson

from jobtester.checks.answer_body import parse_answer
from jobtester.checks.base import CheckFailedError, NoteCollector
from jobtester.checks.completion import parse_completion
from jobtester.checks.expected_word import contains_word
from jobtester.checks.text import split_words, word_error_rate
from jobtester.checks.untrusted_json import find_value

_MAX_WORDS = 400  # that are compared: the time grows with the product of both lengths


@dataclass(frozen=True, slots=True)
class ComparedWord:
    """A word and whether the other text has it too, at its place."""

    word: str
    matches: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """The expected and the received words; `error_rate` for transcripts, None where single words are looked for.

    `received` is empty where only the expected words were looked for in the text.
    """

    expected: tuple[ComparedWord, ...]
    received: tuple[ComparedWord, ...] = ()
    text: str = ""
    error_rate: float | None = None


def compare_answer(response: str, details: Mapping[str, Any]) -> Comparison | None:
    """Return how an answer's text compares with what was expected, None if no words were.

    `response` is the answer as the store keeps it, which may be its beginning only.
    """
    for check in details.get("checks", ()):
        parameters = check.get("parameters", {})
        inputs = list(details.get("inputs", {}).values())
        if check["check"] == "transcript":
            spoken = next((facts["transcript"] for facts in inputs if facts.get("transcript")), "")
            text = read_text(response, parameters.get("text", "text"))
            return compare_transcripts(text, spoken) if spoken and text else None
        if check["check"] == "caption":
            known = next((facts["caption_words"] for facts in inputs if facts.get("caption_words")), ())
            return _look_for(parameters.get("words") or known, read_text(response, parameters.get("path", "text")))
        if check["check"] == "chat" and parameters.get("contains"):
            return _look_for([parameters["contains"]], _read_completion(response, parameters.get("path", "")))
    return None


def compare_transcripts(transcript: str, spoken: str) -> Comparison:
    """Return both texts word by word, and the word error rate."""
    expected, received = split_words(spoken)[:_MAX_WORDS], split_words(transcript)[:_MAX_WORDS]
    in_expected, in_received = set[int](), set[int]()
    for block in SequenceMatcher(None, expected, received, autojunk=False).get_matching_blocks():
        in_expected.update(range(block.a, block.a + block.size))
        in_received.update(range(block.b, block.b + block.size))
    return Comparison(
        _mark(expected, in_expected), _mark(received, in_received), transcript, word_error_rate(received, expected)
    )


def read_text(response: str, path: str) -> str:
    """Return the text at a path of an answer, empty if there is none."""
    try:
        value = find_value(orjson.loads(response), path)
    except (orjson.JSONDecodeError, CheckFailedError):
        return ""
    return value if isinstance(value, str) else ""


def _read_completion(response: str, path: str) -> str:
    """Return the text of a completion, also of the beginning of a stream."""
    try:
        stored = orjson.loads(response)
        is_cut = isinstance(stored, dict) and stored.keys() == {"message", "bytes"}
        body = stored["message"].encode() if is_cut else response.encode()
        answer = parse_answer(body, stream=is_cut, chat=True)
        return parse_completion(answer, path, NoteCollector()).text
    except (orjson.JSONDecodeError, CheckFailedError, AttributeError):
        return ""


def _look_for(words: Sequence[str], text: str) -> Comparison | None:
    if not words or not text:
        return None
    return Comparison(tuple(ComparedWord(word, contains_word(text, word)) for word in words), text=text)


def _mark(words: Sequence[str], matching: set[int]) -> tuple[ComparedWord, ...]:
    return tuple(ComparedWord(word, index in matching) for index, word in enumerate(words))
