"""Completions: what a model said and what it only thought, whichever maker's shape the answer has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import CheckFailedError, NoteCollector
from jobtester.checks.untrusted_json import find_value, shorten

_LIMIT = 100_000  # characters of a completion that are looked at
_TEXT_PARTS = ("text", "output_text", "input_text", "")
_THOUGHT_PARTS = ("thinking", "reasoning", "thought", "redacted_thinking", "reasoning_text")
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thoughts", "reasoning_details", "thought")
_OTHER_SHAPES = (
    "message.content",  # Ollama, Cohere
    "output",  # OpenAI's responses
    "candidates.0.content.parts",  # Gemini
    "content",  # Anthropic, llama.cpp
    "response",  # Ollama's generate
    "generated_text",  # TGI
    "0.generated_text",
    "output_text",
    "text",
)
_NAMES = r"(?:seed:)?think(?:ing)?|thoughts?|reasoning|reason|analysis|reflection"
# Each pattern has what opens a thought, and what closes it.
_TAGS: tuple[tuple[str, str], ...] = (
    (rf"<(?:{_NAMES})(?:\s[^<>]{{0,80}})?>", rf"</(?:{_NAMES})>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|(?:begin_of_thought|START_THINKING)\|>", r"<\|(?:end_of_thought|END_THINKING)\|>"),
    (r"<\|channel\|>(?:analysis|commentary)[^<]{0,80}<\|message\|>", r"<\|channel\|>final[^<]{0,80}<\|message\|>"),
    (r"<unused94>(?:thought)?", r"<unused95>"),
    (r"<details type=\"reasoning\"[^<>]{0,80}>", r"</details>"),
    (r"\A\s*Thinking\.\.\.\s", r"\.\.\.done thinking\."),
)
_OPENED = tuple(re.compile(opened, re.IGNORECASE) for opened, _ in _TAGS)
_CLOSED = tuple(re.compile(closed, re.IGNORECASE) for _, closed in _TAGS)
_MARKS = re.compile(r"<\|(?:start|end|return|im_start|im_end|eot_id|message|channel|assistant)\|>|</?answer>")
_CUT = {"length", "max_tokens", "max_token", "max_output_tokens", "model_length", "token_limit", "max_length"}
_MOST_CHOICES = 64


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered: `said` without what it only thought, `thought` as far as it is shown.

    `finish` is why it stopped in its maker's words, empty where it does not say.
    """

    said: str
    thought: str
    finish: str
    thinking_unfinished: bool = False

    @property
    def cut(self) -> bool:
        """Return True if the maker says that the token limit ended the answer."""
        return self.finish.lower().rpartition(".")[2] in _CUT


def parse_completion(answer: Any, path: str, notes: NoteCollector) -> Completion:
    """Return what an answer says. Raises CheckFailedError for an answer that has no text where one belongs.

    `path` leads to the content; without one every usual shape is understood.
    """
    choice = {} if path else _choice(answer, notes)
    message = _message(choice) if choice else {}
    content, found = _content(answer, path, choice, message)
    text, thoughts = _joined(content, found, notes)
    if len(text) > _LIMIT:
        raise CheckFailedError("too_long", f"{found} is longer than {_LIMIT} characters: {shorten(text)}")
    said, tagged, unfinished = _without_thoughts(text)
    holder = message or (answer if isinstance(answer, Mapping) else {})
    inner = answer.get("message") if isinstance(answer, Mapping) else None
    for place in (holder, choice, inner if isinstance(inner, Mapping) else {}):
        thoughts += [shown for field in _THOUGHT_FIELDS for shown in texts(place.get(field))]
    thought = "\n".join(dict.fromkeys(one for one in (tagged, *thoughts) if one.strip()))
    return Completion(said.strip(), thought[:_LIMIT], _finish(answer, choice), unfinished)


def _choice(answer: Any, notes: NoteCollector) -> Mapping[str, Any]:
    """Return the choice that was asked for: of several the one with index 0, or the first one that says something."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if isinstance(choices, Mapping):
        choices = [choices]
    if not isinstance(choices, list):
        return {}
    tables = [choice for choice in choices[:_MOST_CHOICES] if isinstance(choice, Mapping)]
    if not tables:
        return {}
    first = next((one for one in tables if one.get("index") == 0 and not isinstance(one.get("index"), bool)), tables[0])
    speaking = [one for one in tables if any(shown.strip() for shown in texts(_message(one).get("content")))]
    chosen = first if first in speaking or not speaking else speaking[0]
    if len(choices) > 1:
        notes.add("choices", f"{len(choices)} choices came, one was asked for")
    elif "index" in chosen and chosen["index"] != 0:
        notes.add("choices", f"the only choice has the index {shorten(chosen['index'])}, not 0")
    return chosen


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message of a choice, by whichever name; one that is a text is a completion of the old form."""
    for name in ("message", "delta"):
        message = choice.get(name)
        if isinstance(message, Mapping):
            return message
        if isinstance(message, str):
            return {"content": message}
    return {"content": choice["text"]} if "text" in choice else {}


def _content(answer: Any, path: str, choice: Mapping[str, Any], message: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the content and the path where it stands. Raises CheckFailedError where there is none."""
    if path:
        return find_value(answer, path), path
    if choice:
        if "content" in message:
            return message["content"], "choices.0.message.content"
        if any(message.get(field) for field in (*_THOUGHT_FIELDS, "refusal", "tool_calls")) or "usage" in answer:
            return None, "choices.0.message.content"  # some makers leave out what is empty
    for shape in _OTHER_SHAPES:
        try:
            return find_value(answer, shape), shape
        except CheckFailedError:
            continue
    return find_value(answer, "choices.0.message.content"), "choices.0.message.content"


def _joined(content: Any, path: str, notes: NoteCollector) -> tuple[str, list[str]]:
    """Return a content as one text, and the thoughts among its parts. Raises CheckFailedError for what is no text."""
    if content is None:
        return "", []
    if isinstance(content, str):
        return content, []
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, list) or not all(isinstance(part, str | Mapping) for part in parts):
        raise CheckFailedError("not_text", f"{path} is not a text: it is {shorten(content)}")
    notes.add("content_parts", f"{path} is {shorten(content)}, not one text")
    shown: list[str] = []
    thoughts: list[str] = []
    for part in parts[:10_000]:
        if isinstance(part, str):
            shown.append(part)
        elif part.get("thought") is True or str(part.get("type", "")) in _THOUGHT_PARTS:
            names = ("text", "summary", *_THOUGHT_FIELDS)
            thoughts += [one for name in names for one in texts(part.get(name))]
        elif str(part.get("type", "")) in _TEXT_PARTS:
            shown += texts(part.get("text"))
        elif part.get("type") == "message":
            shown += texts(part.get("content"))
    return "".join(shown), thoughts


def texts(value: Any, depth: int = 3) -> Iterator[str]:
    """Yield the texts of a value that is a text, or a list of texts or of parts that have one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth:
        for one in value[:10_000]:
            yield from texts(one, depth - 1)
    elif isinstance(value, Mapping) and depth:
        for name in ("text", "thinking", "summary", "content"):
            yield from texts(value.get(name), depth - 1)


def _without_thoughts(text: str) -> tuple[str, str, bool]:
    """Return what is said, what is thought between tags, and whether a thought has no end.

    Some templates open the thought in the prompt, so that only its end stands in the answer.
    """
    thoughts: list[str] = []
    unfinished = False
    for opened, closed in zip(_OPENED, _CLOSED, strict=True):
        said: list[str] = []
        at = 0
        while True:
            begin, end = opened.search(text, at), closed.search(text, at)
            if end is not None and (begin is None or end.start() < begin.start()):
                thoughts += [*said, text[at : end.start()]]
                said, at = [], end.end()
            elif begin is not None:
                said.append(text[at : begin.start()])
                end = closed.search(text, begin.end())
                thoughts.append(text[begin.end() : end.start() if end else None])
                if end is None:
                    unfinished, at = True, len(text)
                    break
                at = end.end()
            else:
                break
        text = "".join([*said, text[at:]])
    return _MARKS.sub(" ", text), "\n".join(one.strip() for one in thoughts), unfinished


def _finish(answer: Any, choice: Mapping[str, Any]) -> str:
    table = answer if isinstance(answer, Mapping) else {}
    candidates = table.get("candidates")
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    incomplete = table.get("incomplete_details")
    for place, names in (
        (choice, ("finish_reason", "finishReason", "stop_reason")),
        (first, ("finishReason",)),
        (incomplete, ("reason",)),
        (table, ("done_reason", "stop_reason", "finish_reason")),
    ):
        for name in names:
            reason = place.get(name) if isinstance(place, Mapping) else None
            if reason is not None:
                return reason if isinstance(reason, str) else shorten(reason, 40)
    return ""
