"""`chat`: the answer is a chat completion that says what was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jobtester.pipelines.checks import paths
from jobtester.pipelines.checks.sample import Sample, Wrong

_LIMIT = 100_000
_EXTRA_TOKENS = 8  # tokenisers of different makers count a little differently
_SHAPES = ("choices.0.message.content", "message.content", "choices.0.text", "response")
_FINISHED = ("", "stop", "length", "eos", "eos_token", "stop_sequence", "end_turn")
_ECHO = 12  # characters of a question whose repetition is no accident


@dataclass(frozen=True, slots=True)
class Params:
    """`contains` has to be in the content as a word of its own, whatever its case; a repeated question does not count.

    `path` leads to the content. Without a path the usual shapes are understood: OpenAI's and Ollama's.
    """

    contains: str = ""
    path: str = ""


def check(sample: Sample, params: Params) -> None:
    """Read the completion. Raises Wrong for the first thing that is not right."""
    path = params.path or _path(sample.answer)
    content = paths.text(sample.answer, path, limit=_LIMIT)
    own = _without(content, _question(sample.expectation.parameters))
    right = bool(params.contains) and says(own, params.contains)
    if own != content and not right:
        raise Wrong("echo", f"the answer repeats the question: {paths.show(content)}")
    if params.contains and not right:
        raise Wrong("contains", f"the answer does not say {paths.show(params.contains)}: {paths.show(content)}")
    if isinstance(sample.answer, dict):
        _check_finish(sample.answer)
        _check_usage(sample.answer.get("usage"), sample.expectation.number("max_tokens", "max_completion_tokens"))


def says(content: str, word: str) -> bool:
    """Tell whether a text has a word, or words, not merely as part of a longer one."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", content, re.IGNORECASE) is not None


def _path(answer: Any) -> str:
    """Find which of the usual shapes an answer has; the first one where it has none."""
    for path in _SHAPES:
        try:
            paths.find(answer, path)
        except Wrong:
            continue
        return path
    return _SHAPES[0]


def _question(parameters: Any) -> str:
    """Give the last thing that was said to the model, if it was a text."""
    messages = parameters.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    return content.strip() if isinstance(content, str) else ""


def _without(content: str, question: str) -> str:
    """Take the question out of a content: models that think aloud quote it, and it may name the right answer."""
    if len(question) < _ECHO:
        return content
    return re.sub(re.escape(question), " ", content, flags=re.IGNORECASE)


def _check_finish(answer: dict[str, Any]) -> None:
    if answer.get("ended") is False:
        raise Wrong("finish", "the stream broke off before the answer was finished")
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    reason = first.get("finish_reason") if isinstance(first, dict) else answer.get("done_reason")
    if reason is not None and reason not in _FINISHED:
        raise Wrong("finish", f"the answer did not finish properly: {paths.show(reason)}")


def _check_usage(usage: Any, max_tokens: float | None) -> None:
    """Check that the counts add up; makers that send none are right too."""
    if usage is None:
        return
    if not isinstance(usage, dict):
        raise Wrong("usage", f"usage is no table: it is {paths.show(usage)}")
    counts = [usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total")]
    if counts == [None, None, None]:
        return
    if not all(type(count) is int and paths.is_number(count) and count >= 0 for count in counts):
        raise Wrong("usage", f"usage has counts that are none: {[paths.show(count, 20) for count in counts]}")
    prompt, completion, total = (int(count or 0) for count in counts)
    if prompt + completion != total:
        raise Wrong("usage", f"usage does not add up: {prompt} + {completion} is not {total}")
    if max_tokens is not None and completion > max_tokens + _EXTRA_TOKENS:
        raise Wrong("usage", f"{completion} tokens came, at most {max_tokens:g} were asked for")
