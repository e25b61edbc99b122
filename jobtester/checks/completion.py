"""Read a completion: the text that a model answers and what it only thinks, in the dialect of any server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import CheckFailedError, NoteCollector
from jobtester.checks.untrusted_json import find_value, shorten

_MAX_CHARACTERS = 100_000
MAX_CHOICES = 64  # one is requested; the others are only counted
_MAX_PARTS = 10_000
_TEXT_PART_TYPES = ("text", "output_text", "input_text", "")
_THOUGHT_PART_TYPES = ("thinking", "reasoning", "thought", "redacted_thinking", "reasoning_text")
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thoughts", "reasoning_details", "thought")
# Where servers that do not speak OpenAI's dialect put the text, the most specific path first.
_CONTENT_PATHS = (
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
_TAG_NAMES = r"(?:seed:)?think(?:ing)?|thoughts?|reasoning|reason|analysis|reflection"
# What opens a thought in the text itself, and what closes it, in the chat templates of different models. Lengths are
# bounded, so that no text makes a pattern slow.
_THOUGHT_TAGS: tuple[tuple[str, str], ...] = (
    (rf"<(?:{_TAG_NAMES})(?:\s[^<>]{{0,80}})?>", rf"</(?:{_TAG_NAMES})>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|(?:begin_of_thought|START_THINKING)\|>", r"<\|(?:end_of_thought|END_THINKING)\|>"),
    (r"<\|channel\|>(?:analysis|commentary)[^<]{0,80}<\|message\|>", r"<\|channel\|>final[^<]{0,80}<\|message\|>"),
    (r"<unused94>(?:thought)?", r"<unused95>"),
    (r"<details type=\"reasoning\"[^<>]{0,80}>", r"</details>"),
    (r"\A\s*Thinking\.\.\.\s", r"\.\.\.done thinking\."),
)
_OPENING = tuple(re.compile(opening, re.IGNORECASE) for opening, _ in _THOUGHT_TAGS)
_CLOSING = tuple(re.compile(closing, re.IGNORECASE) for _, closing in _THOUGHT_TAGS)
_TEMPLATE_MARKS = re.compile(r"<\|(?:start|end|return|im_start|im_end|eot_id|message|channel|assistant)\|>|</?answer>")
_TRUNCATED = {"length", "max_tokens", "max_token", "max_output_tokens", "model_length", "token_limit", "max_length"}


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answers: `text` without its thoughts, and `thoughts` as far as they are shown.

    `finish_reason` is why it stopped, in the server's words, empty if it does not say.
    """

    text: str
    thoughts: str
    finish_reason: str
    is_thought_unfinished: bool = False

    @property
    def is_truncated(self) -> bool:
        """Return True if the server says that the token limit ended the answer."""
        return self.finish_reason.lower().rpartition(".")[2] in _TRUNCATED


def parse_completion(answer: Any, path: str, notes: NoteCollector) -> Completion:
    """Return the completion in an answer. Raises CheckFailedError for an answer that has no text where one belongs.

    `path` leads to the content; without one the shapes of all usual servers are understood.
    """
    choice = {} if path else _find_choice(answer, notes)
    message = _find_message(choice) if choice else {}
    content, content_path = _find_content(answer, path, choice, message)
    text, thoughts = _join_parts(content, content_path, notes)
    if len(text) > _MAX_CHARACTERS:
        raise CheckFailedError(
            "too_long", f"{content_path} is longer than {_MAX_CHARACTERS} characters: {shorten(text)}"
        )
    text, tagged, is_unfinished = _split_tagged_thoughts(text)
    outer = message or (answer if isinstance(answer, Mapping) else {})
    inner = answer.get("message") if isinstance(answer, Mapping) else None
    for table in (outer, choice, inner if isinstance(inner, Mapping) else {}):
        thoughts += [thought for key in _THOUGHT_FIELDS for thought in iterate_texts(table.get(key))]
    # The same thought may be shown in several places, and counts once.
    unique = dict.fromkeys(thought for thought in (tagged, *thoughts) if thought.strip())
    return Completion(
        text.strip(), "\n".join(unique)[:_MAX_CHARACTERS], _find_finish_reason(answer, choice), is_unfinished
    )


def _find_choice(answer: Any, notes: NoteCollector) -> Mapping[str, Any]:
    """Return the requested choice: of several the one with index 0, or the first one with text."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if isinstance(choices, Mapping):
        choices = [choices]
    if not isinstance(choices, list):
        return {}
    tables = [choice for choice in choices[:MAX_CHOICES] if isinstance(choice, Mapping)]
    if not tables:
        return {}
    first = next((table for table in tables if table.get("index") == 0 and table["index"] is not False), tables[0])
    with_text = [
        table for table in tables if any(text.strip() for text in iterate_texts(_find_message(table).get("content")))
    ]
    choice = first if first in with_text or not with_text else with_text[0]
    if len(choices) > 1:
        notes.add("choices", f"the answer has {len(choices)} choices, one was requested")
    elif "index" in choice and choice["index"] != 0:
        notes.add("choices", f"the only choice has the index {shorten(choice['index'])}, not 0")
    return choice


def _find_message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message of a choice under any of its names; `text` is that of completions without chat."""
    for name in ("message", "delta"):
        message = choice.get(name)
        if isinstance(message, Mapping):
            return message
        if isinstance(message, str):
            return {"content": message}
    return {"content": choice["text"]} if "text" in choice else {}


def _find_content(answer: Any, path: str, choice: Mapping[str, Any], message: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the content and the path where it is. Raises CheckFailedError if there is none."""
    if path:
        return find_value(answer, path), path
    usual_path = "choices.0.message.content"
    if choice:
        if "content" in message:
            return message["content"], usual_path
        # Some servers leave out what is empty. That it is a completion shows in what is beside it.
        if any(message.get(key) for key in (*_THOUGHT_FIELDS, "refusal", "tool_calls")) or "usage" in answer:
            return None, usual_path
    for other_path in _CONTENT_PATHS:
        try:
            return find_value(answer, other_path), other_path
        except CheckFailedError:
            continue
    return find_value(answer, usual_path), usual_path


def _join_parts(content: Any, path: str, notes: NoteCollector) -> tuple[str, list[str]]:
    """Return a content as one text, and the thoughts among its parts. Raises CheckFailedError if it is not a text."""
    if content is None:
        return "", []
    if isinstance(content, str):
        return content, []
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, list) or not all(isinstance(part, str | Mapping) for part in parts):
        raise CheckFailedError("not_text", f"{path} is not a text: it is {shorten(content)}")
    notes.add("content_parts", f"{path} is {shorten(content)}, not one text")
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts[:_MAX_PARTS]:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("thought") is True or str(part.get("type", "")) in _THOUGHT_PART_TYPES:
            keys = ("text", "summary", *_THOUGHT_FIELDS)
            thoughts += [thought for key in keys for thought in iterate_texts(part.get(key))]
        elif str(part.get("type", "")) in _TEXT_PART_TYPES:
            texts += iterate_texts(part.get("text"))
        elif part.get("type") == "message":
            texts += iterate_texts(part.get("content"))
    return "".join(texts), thoughts


def iterate_texts(value: Any, depth: int = 3) -> Iterator[str]:
    """Yield the texts of a value that is a text, or a list of texts or of parts that have one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth:
        for item in value[:_MAX_PARTS]:
            yield from iterate_texts(item, depth - 1)
    elif isinstance(value, Mapping) and depth:
        for key in ("text", "thinking", "summary", "content"):
            yield from iterate_texts(value.get(key), depth - 1)


def _split_tagged_thoughts(text: str) -> tuple[str, str, bool]:
    """Return the text outside of thought tags, the thoughts inside, and True if a thought has no end."""
    thoughts: list[str] = []
    is_unfinished = False
    for opening, closing in zip(_OPENING, _CLOSING, strict=True):
        outside: list[str] = []
        position = 0
        while True:
            start, end = opening.search(text, position), closing.search(text, position)
            if end is not None and (start is None or end.start() < start.start()):
                # Some chat templates open the thought in the prompt, so that only its end is in the answer:
                # everything before it was thought.
                thoughts += [*outside, text[position : end.start()]]
                outside, position = [], end.end()
            elif start is not None:
                outside.append(text[position : start.start()])
                end = closing.search(text, start.end())
                thoughts.append(text[start.end() : end.start() if end else None])
                if end is None:
                    is_unfinished, position = True, len(text)
                    break
                position = end.end()
            else:
                break
        text = "".join([*outside, text[position:]])
    return _TEMPLATE_MARKS.sub(" ", text), "\n".join(thought.strip() for thought in thoughts), is_unfinished


def _find_finish_reason(answer: Any, choice: Mapping[str, Any]) -> str:
    table = answer if isinstance(answer, Mapping) else {}
    candidates = table.get("candidates")
    for holder, keys in (
        (choice, ("finish_reason", "finishReason", "stop_reason")),
        (candidates[0] if isinstance(candidates, list) and candidates else None, ("finishReason",)),  # Gemini
        (table.get("incomplete_details"), ("reason",)),  # OpenAI's responses
        (table, ("done_reason", "stop_reason", "finish_reason")),  # Ollama, Anthropic
    ):
        for key in keys:
            reason = holder.get(key) if isinstance(holder, Mapping) else None
            if reason is not None:
                return reason if isinstance(reason, str) else shorten(reason, 40)
    return ""
