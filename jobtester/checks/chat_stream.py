"""Streams: the events of a streamed chat completion, put together into the answer that it would have been."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobtester.checks.base import CheckFailedError, NoteCollector
from jobtester.checks.completion import texts
from jobtester.checks.untrusted_json import parse_json, shorten

_BEGINS = re.compile(rb"(?:data|event|id|retry)?:")
_FIELD = re.compile(rb"(?:event|id|retry)\s*:|:")
_DONE = (b"[DONE]", b'"[DONE]"', b"[done]")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_MOST_CHOICES = 64


def begins(content: bytes) -> bool:
    """Return True if a body begins as a stream of events does."""
    return _BEGINS.match(content) is not None


def has_lines(content: bytes) -> bool:
    """Return True if a body looks like several JSON objects, one in each line."""
    first, _, rest = content.partition(b"\n")
    return first.startswith(b"{") and first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")


@dataclass(slots=True)
class _Choice:
    """What came of one choice so far."""

    pieces: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    role: str = "assistant"
    reason: str | None = None


def completion(body: bytes, notes: NoteCollector) -> dict[str, Any]:
    """Return the answer that would have come without streaming.

    `chunks` counts the events that carried text; `ended` says whether the stream
    came to its end. Raises CheckFailedError for an error before the end, and where there is no event at all.
    """
    answer: dict[str, Any] = {}
    choices: dict[int, _Choice] = {}
    events = done = False
    for event in _events(body, notes):
        if event is None:
            done = True
            break
        if event.get("error"):
            if any(choice.reason for choice in choices.values()):
                notes.add("error", f"an error follows the end of the answer: {shorten(event['error'])}")
                continue
            raise CheckFailedError("stream_error", f"the stream broke off: {shorten(event['error'])}")
        events = True
        answer.update({key: event[key] for key in ("id", "model", "created", "usage", "eval_count") if event.get(key)})
        for index, piece in _pieces(event):
            if len(choices) < _MOST_CHOICES or index in choices:
                _add(choices.setdefault(index, _Choice()), piece, notes)
        done = done or event.get("done") is True or event.get("type") in ("message_stop", "response.completed")
    if not events:
        raise CheckFailedError(
            "bad_json", f"the stream has no events: {shorten(body[:200].decode('utf-8', 'replace'), 60)}"
        )
    index, chosen = _chosen(choices, notes)
    message: dict[str, Any] = {"role": chosen.role, "content": "".join(chosen.pieces)}
    if chosen.thoughts:
        message["reasoning_content"] = "".join(chosen.thoughts)
    answer["choices"] = [{"index": index, "finish_reason": chosen.reason, "message": message}]
    answer["chunks"], answer["ended"] = len(chosen.pieces), done or bool(chosen.reason)
    return answer


def _chosen(choices: Mapping[int, _Choice], notes: NoteCollector) -> tuple[int, _Choice]:
    """Return the choice that was asked for: the one with index 0, or else the first one that says something."""
    if len(choices) > 1:
        notes.add("choices", f"{len(choices)} choices came, one was asked for")
    if 0 in choices and (choices[0].pieces or not any(one.pieces for one in choices.values())):
        return 0, choices[0]
    speaking = next((item for item in choices.items() if item[1].pieces), None)
    return speaking or next(iter(choices.items()), (0, _Choice()))


def _add(choice: _Choice, piece: Mapping[str, Any], notes: NoteCollector) -> None:
    """Add one piece, a table with any of `delta`, `message`, `text` and `finish_reason`, to a choice."""
    whole = piece.get("delta") is None and isinstance(piece.get("message"), Mapping)
    delta = piece.get("message") if whole else piece.get("delta")
    delta = delta if isinstance(delta, Mapping) else {"content": delta if isinstance(delta, str) else piece.get("text")}
    content = delta.get("content")
    if isinstance(content, list | Mapping):
        notes.add("content_parts", f"the content of an event is {shorten(content)}, not one text")
    text = "".join(texts(content))
    if text and not (whole and text == "".join(choice.pieces)):  # some repeat the whole answer at its end
        choice.pieces.append(text)
    for name in _THOUGHTS:
        if thought := "".join(texts(delta.get(name))):
            choice.thoughts.append(thought)
            break
    if isinstance(delta.get("role"), str):
        choice.role = delta["role"] or choice.role
    reason = piece.get("finish_reason")
    if reason:
        choice.reason = reason if isinstance(reason, str) else shorten(reason, 40)


def _pieces(event: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the pieces of an event with the index of their choices, whichever maker wrote it."""
    choices = event.get("choices")
    if isinstance(choices, list):
        for place, choice in enumerate(choices[:_MOST_CHOICES]):
            if isinstance(choice, Mapping):
                index = choice.get("index")
                yield (index if type(index) is int else place), choice
        return
    delta = event.get("delta")
    if isinstance(delta, str):  # OpenAI's responses
        if str(event.get("type", "")).endswith("output_text.delta"):
            yield 0, {"delta": {"content": delta}}
    elif isinstance(delta, Mapping):  # Anthropic, Cohere
        inner = delta.get("message")
        content = inner.get("content") if isinstance(inner, Mapping) else delta.get("text")
        reason = delta.get("stop_reason") or delta.get("finish_reason")
        yield 0, {"delta": {"content": content, "thinking": delta.get("thinking")}, "finish_reason": reason}
    elif isinstance(event.get("message"), Mapping) and "type" not in event:  # Ollama's chat
        yield 0, {"delta": event["message"], "finish_reason": event.get("done_reason")}
    elif isinstance(event.get("response"), str):  # Ollama's generate
        yield 0, {"delta": {"content": event["response"]}, "finish_reason": event.get("done_reason")}


def _events(body: bytes, notes: NoteCollector) -> Iterator[dict[str, Any] | None]:
    """Yield the tables in a stream of events, None for its end mark; signs of life in between say nothing."""
    pending: list[bytes] = []
    for line in body.splitlines():
        bare = line.strip()
        if bare.startswith(b"data:"):
            pending.append(bare[5:].strip())
        elif not bare:
            yield from _event(pending, notes)
            pending = []
        elif bare.startswith(b"{"):
            yield from _event([*pending, bare] if pending else [bare], notes)
            pending = []
        elif _FIELD.match(bare) is None and pending:
            pending.append(bare)  # the rest of an event that was written over several lines
    yield from _event(pending, notes)


def _event(lines: list[bytes], notes: NoteCollector) -> Iterator[dict[str, Any] | None]:
    """Yield what stands in the data of one event: several lines are one text, or else an event each."""
    if len(lines) > 1:
        try:
            whole = parse_json(b"\n".join(lines))
        except ValueError:
            pass
        else:
            notes.add("split_event", f"an event has its data in {len(lines)} lines")
            yield from _known(whole)
            return
    for data in lines:
        if data in _DONE:
            yield None
        elif data.startswith((b"{", b"[")):
            try:
                event = parse_json(data)
            except ValueError as error:
                shown = shorten(data[:200].decode("utf-8", "replace"), 60)
                raise CheckFailedError("bad_json", f"an event of the stream is no JSON: {shown}") from error
            yield from _known(event)


def _known(event: Any) -> Iterator[dict[str, Any]]:
    known = ("choices", "delta", "message", "response", "done")
    if isinstance(event, dict) and (event.get("error") or any(name in event for name in known)):
        yield event
