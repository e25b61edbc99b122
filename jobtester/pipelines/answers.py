"""Answers: a body read as JSON, whole or as a stream of events, and what can be measured on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jobtester.pipelines.checks import paths, strictjson
from jobtester.pipelines.checks.sample import Wrong

_DATA = re.compile(rb"(?:^|[\r\n])data:([^\r\n]*)")
_FASTEST = 10_000  # tokens/s that nobody writes for one reader


def parse(body: bytes, *, stream: bool = False) -> Any:
    """Read a body as JSON; a streamed chat completion is put together first.

    Raises Wrong `bad_json`, also for NaN, infinities and nesting too deep to be meant.
    """
    if stream and not body.lstrip().startswith(b"{"):
        return chat_from_stream(body)
    try:
        return strictjson.read(body)
    except ValueError as error:
        begin = paths.show(body[:200].decode("utf-8", "replace"), 60)
        raise Wrong("bad_json", f"the answer is no JSON ({error}): {begin}") from error


def chat_from_stream(body: bytes) -> dict[str, Any]:
    """Put the events of a streamed chat completion together into the answer that would have come without streaming.

    `chunks` counts the events that carried text, for makers that do not count tokens; `ended` tells whether the stream
    came to its end. Raises Wrong for an error in the stream and where there is no event at all.
    """
    answer: dict[str, Any] = {}
    content: list[str] = []
    role, reason, done = "assistant", None, False
    for event in _events(body):
        if event is None:
            done = True
            break
        if "error" in event:
            raise Wrong("stream_error", f"the stream broke off: {paths.show(event['error'])}")
        answer.update({key: event[key] for key in ("id", "model", "created", "usage") if event.get(key)})
        choice = _first(event.get("choices"))
        delta = choice.get("delta") or choice.get("message") or {}
        if isinstance(delta, dict):
            if isinstance(delta.get("content"), str) and delta["content"]:
                content.append(delta["content"])
            role = delta.get("role") or role
        reason = choice.get("finish_reason") or reason
        answer.setdefault("choices", [])
    if "choices" not in answer:
        raise Wrong("bad_json", f"the stream has no events: {paths.show(body[:200].decode('utf-8', 'replace'), 60)}")
    message = {"role": role, "content": "".join(content)}
    answer["choices"] = [{"index": 0, "finish_reason": reason, "message": message}]
    answer["chunks"], answer["ended"] = len(content), done or bool(reason)
    return answer


def tokens(answer: Any) -> int | None:
    """Give how many tokens a chat completion has, as its maker counts them; None where nothing is counted."""
    if not isinstance(answer, dict):
        return None
    usage = answer.get("usage")
    counted = usage.get("completion_tokens") if isinstance(usage, dict) else answer.get("eval_count")
    if counted is None:
        counted = answer.get("chunks")
    return counted if paths.is_number(counted) and isinstance(counted, int) and counted > 0 else None


def measures(count: int | None, round_trip_s: float, first_token_s: float | None) -> Mapping[str, float]:
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


def _events(body: bytes) -> Iterator[dict[str, Any] | None]:
    """Give the tables in a stream of events, None for its end; what else is in between says nothing of a completion."""
    for line in _DATA.finditer(body):
        data = line[1].strip()
        if data == b"[DONE]":
            yield None
        try:
            event = strictjson.read(data)
        except ValueError as error:
            shown = paths.show(data[:200].decode("utf-8", "replace"), 60)
            raise Wrong("bad_json", f"an event of the stream is no JSON: {shown}") from error
        if isinstance(event, dict) and ("choices" in event or "error" in event):
            yield event


def _first(choices: Any) -> dict[str, Any]:
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, dict) else {}
