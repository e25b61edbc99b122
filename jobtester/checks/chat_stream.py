"""Assemble the events of a streamed chat completion into the answer without streaming."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobtester.checks.base import CheckFailedError, NoteCollector
from jobtester.checks.completion import MAX_CHOICES, iterate_texts
from jobtester.checks.untrusted_json import parse_json, shorten

_STREAM_START = re.compile(rb"(?:data|event|id|retry)?:")
_OTHER_FIELD = re.compile(rb"(?:event|id|retry)\s*:|:")
_END_MARKS = (b"[DONE]", b'"[DONE]"', b"[done]")
_EVENT_KEYS = ("choices", "delta", "message", "response", "done")
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")


def is_event_stream(content: bytes) -> bool:
    """Return True if a body begins as a stream of events does."""
    return _STREAM_START.match(content) is not None


def is_json_lines(content: bytes) -> bool:
    """Return True if a body looks like several JSON objects, one in each line."""
    first, _, rest = content.partition(b"\n")
    return first.startswith(b"{") and first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")


@dataclass(slots=True)
class _Choice:
    """What has arrived of one choice."""

    pieces: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    role: str = "assistant"
    finish_reason: str | None = None


def assemble_completion(body: bytes, notes: NoteCollector) -> dict[str, Any]:
    """Return a stream as one completion, with two more keys.

    `chunks` counts the events that carried text; `ended` is true if the stream came to its end. Raises
    CheckFailedError for an error before the end, and for a stream without events.
    """
    answer: dict[str, Any] = {}
    choices: dict[int, _Choice] = {}
    has_events = ended = False
    for event in _iterate_events(body, notes):
        if event is None:
            ended = True
            break
        if event.get("error"):
            # After the end, an error changes nothing about what was said.
            if any(choice.finish_reason for choice in choices.values()):
                notes.add("error", f"an error follows the end of the answer: {shorten(event['error'])}")
                continue
            raise CheckFailedError("stream_error", f"the stream broke off: {shorten(event['error'])}")
        has_events = True
        answer.update({key: event[key] for key in ("id", "model", "created", "usage", "eval_count") if event.get(key)})
        for index, piece in _iterate_pieces(event):
            if len(choices) < MAX_CHOICES or index in choices:
                _add_piece(choices.setdefault(index, _Choice()), piece, notes)
        ended = ended or event.get("done") is True or event.get("type") in ("message_stop", "response.completed")
    if not has_events:
        raise CheckFailedError(
            "bad_json", f"the stream has no events: {shorten(body[:200].decode('utf-8', 'replace'), 60)}"
        )
    index, choice = _pick_choice(choices, notes)
    message: dict[str, Any] = {"role": choice.role, "content": "".join(choice.pieces)}
    if choice.thoughts:
        message["reasoning_content"] = "".join(choice.thoughts)
    answer["choices"] = [{"index": index, "finish_reason": choice.finish_reason, "message": message}]
    answer["chunks"], answer["ended"] = len(choice.pieces), ended or bool(choice.finish_reason)
    return answer


def _pick_choice(choices: Mapping[int, _Choice], notes: NoteCollector) -> tuple[int, _Choice]:
    """Return the requested choice: the one with index 0, or else the first one with text."""
    if len(choices) > 1:
        notes.add("choices", f"the answer has {len(choices)} choices, one was requested")
    with_text = [(index, choice) for index, choice in choices.items() if choice.pieces]
    if 0 in choices and (choices[0].pieces or not with_text):
        return 0, choices[0]
    return next(iter(with_text or choices.items()), (0, _Choice()))


def _add_piece(choice: _Choice, piece: Mapping[str, Any], notes: NoteCollector) -> None:
    """Add one piece, a table with any of `delta`, `message`, `text` and `finish_reason`, to a choice."""
    is_whole = piece.get("delta") is None and isinstance(piece.get("message"), Mapping)
    delta = piece.get("message") if is_whole else piece.get("delta")
    if not isinstance(delta, Mapping):
        delta = {"content": delta if isinstance(delta, str) else piece.get("text")}
    content = delta.get("content")
    if isinstance(content, list | Mapping):
        notes.add("content_parts", f"the content of an event is {shorten(content)}, not one text")
    text = "".join(iterate_texts(content))
    # Some servers repeat the whole answer at its end.
    if text and not (is_whole and text == "".join(choice.pieces)):
        choice.pieces.append(text)
    for key in _THOUGHT_KEYS:
        # Only the first: the same thought may be sent under two names, and would count twice.
        if thought := "".join(iterate_texts(delta.get(key))):
            choice.thoughts.append(thought)
            break
    if isinstance(delta.get("role"), str):
        choice.role = delta["role"] or choice.role
    reason = piece.get("finish_reason")
    if reason:
        choice.finish_reason = reason if isinstance(reason, str) else shorten(reason, 40)


def _iterate_pieces(event: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the pieces of an event with the index of their choice, in whichever dialect it is written."""
    choices = event.get("choices")
    if isinstance(choices, list):
        for position, choice in enumerate(choices[:MAX_CHOICES]):
            if isinstance(choice, Mapping):
                index = choice.get("index")
                yield (index if type(index) is int else position), choice
        return
    delta = event.get("delta")
    if isinstance(delta, str):  # OpenAI's responses
        if str(event.get("type", "")).endswith("output_text.delta"):
            yield 0, {"delta": {"content": delta}}
    elif isinstance(delta, Mapping):  # Anthropic, Cohere
        message = delta.get("message")
        content = message.get("content") if isinstance(message, Mapping) else delta.get("text")
        reason = delta.get("stop_reason") or delta.get("finish_reason")
        yield 0, {"delta": {"content": content, "thinking": delta.get("thinking")}, "finish_reason": reason}
    elif isinstance(event.get("message"), Mapping) and "type" not in event:  # Ollama's chat
        yield 0, {"delta": event["message"], "finish_reason": event.get("done_reason")}
    elif isinstance(event.get("response"), str):  # Ollama's generate
        yield 0, {"delta": {"content": event["response"]}, "finish_reason": event.get("done_reason")}


def _iterate_events(body: bytes, notes: NoteCollector) -> Iterator[dict[str, Any] | None]:
    """Yield the tables in a stream of events, None for its end mark; keep-alive events are left out."""
    pending: list[bytes] = []
    for line in body.splitlines():
        content = line.strip()
        if content.startswith(b"data:"):
            pending.append(content[5:].strip())
        elif not content:
            yield from _parse_event(pending, notes)
            pending = []
        elif content.startswith(b"{"):
            yield from _parse_event([*pending, content] if pending else [content], notes)
            pending = []
        elif _OTHER_FIELD.match(content) is None and pending:
            pending.append(content)  # the rest of an event that is written over several lines without their names
    yield from _parse_event(pending, notes)


def _parse_event(lines: list[bytes], notes: NoteCollector) -> Iterator[dict[str, Any] | None]:
    """Yield what is in the data of one event."""
    # By the standard, several data lines are one text. Some servers leave out the empty lines between events, so
    # lines that make no JSON together are an event each.
    if len(lines) > 1:
        try:
            event = parse_json(b"\n".join(lines))
        except ValueError:
            pass
        else:
            notes.add("split_event", f"an event has its data in {len(lines)} lines")
            if _has_content(event):
                yield event
            return
    for data in lines:
        if data in _END_MARKS:
            yield None
        elif data.startswith((b"{", b"[")):
            try:
                event = parse_json(data)
            except ValueError as error:
                shown = shorten(data[:200].decode("utf-8", "replace"), 60)
                raise CheckFailedError("bad_json", f"an event of the stream is not JSON: {shown}") from error
            if _has_content(event):
                yield event


def _has_content(event: Any) -> bool:
    """Return True if an event carries an error or a part of the completion: not a ping, not a balance."""
    return isinstance(event, dict) and bool(event.get("error") or any(key in event for key in _EVENT_KEYS))
