"""Parse the body of an answer, as JSON or as a stream of events, and measure how fast it arrived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobtester.checks.base import CheckFailedError, NoteCollector
from jobtester.checks.chat_stream import assemble_completion, is_event_stream, is_json_lines
from jobtester.checks.completion import parse_completion
from jobtester.checks.token_usage import count_measurable_tokens
from jobtester.checks.untrusted_json import parse_json, shorten

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"
# No model writes this many tokens/s for one reader: a higher rate shows that the answer was written before it was sent.
_MAX_TOKENS_PER_S = 10_000


def parse_answer(body: bytes, *, stream: bool = False, chat: bool = False, notes: NoteCollector | None = None) -> Any:
    """Return a body parsed as JSON; a streamed chat completion is assembled first.

    `stream` is true if the request asks for a stream, `chat` if the answer is a completion, which some servers stream
    unasked. Raises CheckFailedError `bad_json`, also for NaN, infinities and nesting too deep to be meant.
    """
    notes = notes or NoteCollector()
    content = _strip_padding(body, notes)
    if (stream or chat) and not content.startswith((b"{", b"[")) and (stream or is_event_stream(content)):
        if not stream:
            notes.add("streamed", "the answer is a stream, which was not requested")
        return assemble_completion(content, notes)
    try:
        return parse_json(content)
    except ValueError as error:
        if (stream or chat) and is_json_lines(content):
            notes.add("lines", "the answer has one JSON object in each line")
            return assemble_completion(content, notes)
        start = shorten(body[:200].decode("utf-8", "replace"), 60)
        raise CheckFailedError("bad_json", f"the answer is not JSON ({error}): {start}") from error


def _strip_padding(body: bytes, notes: NoteCollector) -> bytes:
    """Return a body without byte order mark, padding, and comments before JSON."""
    content = body.strip(_BLANKS)
    if content.startswith(_BYTE_ORDER_MARK):
        notes.add("byte_order_mark", "the answer begins with a byte order mark")
        content = content.removeprefix(_BYTE_ORDER_MARK).lstrip(_BLANKS)
    if content.endswith(b"\0"):
        notes.add("padding", "zero bytes follow the answer")
        content = content.rstrip(_BLANKS + b"\0")
    # Some proxies send comments of server-sent events to keep the connection open, and then plain JSON. Before a
    # stream the comments stay: they are how it is recognized.
    rest = content
    while rest.startswith(b":"):
        line, _, rest = rest.partition(b"\n")
        if not line.strip(_BLANKS):
            break
        rest = rest.lstrip(_BLANKS)
    return rest if rest.startswith(b"{") else content


def count_tokens(answer: Any, path: str = "") -> int | None:
    """Return the tokens in the text of a chat completion; None if they cannot be counted.

    The server's own count does not matter: some count each token twice. `path` leads to the content.
    """
    try:
        return count_measurable_tokens(answer, parse_completion(answer, path, NoteCollector()))
    except CheckFailedError:
        return None


def measure_tokens(count: int | None, round_trip_s: float, first_token_s: float | None) -> Mapping[str, float]:
    """Return `first_token_s`, in seconds, and `tokens_per_s` of a completion of `count` tokens, where they are known.

    Short completions have low rates, since the round trip is in them, unless the time of the first token is known.
    A stream that arrived in one piece has no rate: it was written before, and nobody knows how fast.
    """
    measures = {}
    if first_token_s is not None:
        measures["first_token_s"] = min(round(first_token_s, 6), round_trip_s)
    if count is not None:
        writing_s = round_trip_s - (first_token_s if first_token_s is not None and count > 1 else 0.0)
        if writing_s * _MAX_TOKENS_PER_S > count:
            measures["tokens_per_s"] = round(count / writing_s, 3)
    return measures
