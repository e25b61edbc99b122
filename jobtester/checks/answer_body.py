"""Answers: a body read as JSON, whole or as a stream of events, and what can be measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobtester.checks import chat_stream
from jobtester.checks.base import CheckFailedError, NoteCollector
from jobtester.checks.completion import parse_completion
from jobtester.checks.token_usage import countable_tokens
from jobtester.checks.untrusted_json import parse_json, shorten

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"
_FASTEST = 10_000  # tokens/s that nobody writes for one reader


def parse_answer(body: bytes, *, stream: bool = False, chat: bool = False, notes: NoteCollector | None = None) -> Any:
    """Return a body read as JSON; a streamed chat completion is put together first.

    `stream` says that a stream was asked for, `chat` that the answer is a completion, which some makers stream unasked.
    Raises CheckFailedError `bad_json`, also for NaN, infinities and nesting too deep to be meant.
    """
    notes = notes or NoteCollector()
    content = _bare(body, notes)
    if (stream or chat) and not content.startswith((b"{", b"[")) and (stream or chat_stream.begins(content)):
        if not stream:
            notes.add("streamed", "the answer comes as a stream, which was not asked for")
        return chat_stream.completion(content, notes)
    try:
        return parse_json(content)
    except ValueError as error:
        if (stream or chat) and chat_stream.has_lines(content):
            notes.add("lines", "the answer comes as one JSON object in each line")
            return chat_stream.completion(content, notes)
        begin = shorten(body[:200].decode("utf-8", "replace"), 60)
        raise CheckFailedError("bad_json", f"the answer is no JSON ({error}): {begin}") from error


def _bare(body: bytes, notes: NoteCollector) -> bytes:
    """Return a body without byte order mark, padding and the comments that keep a connection awake before JSON."""
    content = body.strip(_BLANKS)
    if content.startswith(_BYTE_ORDER_MARK):
        notes.add("byte_order_mark", "the answer begins with a byte order mark")
        content = content.removeprefix(_BYTE_ORDER_MARK).lstrip(_BLANKS)
    if content.endswith(b"\0"):
        notes.add("padding", "zero bytes follow the answer")
        content = content.rstrip(_BLANKS + b"\0")
    awake = content
    while awake.startswith(b":"):
        line, _, awake = awake.partition(b"\n")
        if not line.strip(_BLANKS):
            break
        awake = awake.lstrip(_BLANKS)
    return awake if awake.startswith(b"{") else content


def count_tokens(answer: Any, path: str = "") -> int | None:
    """Return how many tokens a chat completion has by its text; None where nobody can tell.

    What the maker counts does not matter: some count each token twice. `path` leads to the content.
    """
    try:
        return countable_tokens(answer, parse_completion(answer, path, NoteCollector()))
    except CheckFailedError:
        return None


def token_measures(count: int | None, round_trip_s: float, first_token_s: float | None) -> Mapping[str, float]:
    """Give what is measured on a completion of `count` tokens: time to the first one in seconds, and tokens/s.

    Short completions have low rates, since the way there and back is in them, unless the first token's time is known.
    A stream that came in one piece has no rate: it was written before, and nobody knows how fast.
    """
    found = {}
    if first_token_s is not None:
        found["first_token_s"] = min(round(first_token_s, 6), round_trip_s)
    if count is not None:
        writing = round_trip_s - (first_token_s if first_token_s is not None and count > 1 else 0.0)
        if writing * _FASTEST > count:
            found["tokens_per_s"] = round(count / writing, 3)
    return found
