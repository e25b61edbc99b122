"""Count the tokens of a completion: those that the server claims, and those that the text proves.

Servers count differently, some of them twice, and nobody can look into a tokenizer from outside. Rates are therefore
measured on the text alone: the same text has the same count, whatever is claimed for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobtester.checks.completion import Completion
from jobtester.checks.text import WITHOUT_SPACES
from jobtester.checks.untrusted_json import is_number

# One token: up to eight letters of a word, up to three digits, or one sign. Characters of scripts without spaces count
# each. For English this is within a tenth or two of what usual tokenizers count.
_TOKEN = re.compile(rf"[{WITHOUT_SPACES}]|[^\W\d_{WITHOUT_SPACES}]{{1,8}}|\d{{1,3}}|[^\w\s]|_+")
# A claim of half as much again is more than tokenizers differ by, so it contradicts the text. From three times on,
# thoughts that are not shown are the better explanation: then the rate is not measured, and the answer has no note.
_CONTRADICTED_RATIO = 1.5
_HIDDEN_RATIO = 3.0
_SLACK_TOKENS = 8  # that are counted and appear nowhere: end marks, marks of a template
# A stream usually has one token in each event. From four on, a claim of just twice as many is no accident.
_MIN_CHUNKS = 4
_SLACK_CHUNKS = 2


def count_text_tokens(completion: Completion) -> int:
    """Return the tokens in the text of a completion, shown thoughts included."""
    return sum(len(_TOKEN.findall(text)) for text in (completion.text, completion.thoughts))


def count_measurable_tokens(answer: Any, completion: Completion) -> int | None:
    """Return the tokens to measure a rate on; None if there are none, or if much was written that is not shown."""
    count = count_text_tokens(completion)
    table = answer if isinstance(answer, Mapping) else {}
    hidden = max(count_hidden_tokens(table), (find_claimed_tokens(table) or 0.0) - _HIDDEN_RATIO * count)
    if not completion.thoughts and hidden > _SLACK_TOKENS:
        return None
    return count or None


def find_contradiction(table: Mapping[str, Any], completion: Completion) -> str:
    """Return how the server's count contradicts its text, empty if it does not."""
    claimed, counted, chunks = find_claimed_tokens(table), count_text_tokens(completion), table.get("chunks")
    if claimed is None or count_hidden_tokens(table):
        return ""
    if (
        type(chunks) is int
        and chunks >= _MIN_CHUNKS
        and not completion.thoughts
        and abs(claimed - 2 * chunks) <= _SLACK_CHUNKS
    ):
        return f"{claimed:g} tokens are counted for {chunks} pieces of a stream: each of them seems to count twice"
    if claimed > _CONTRADICTED_RATIO * counted + _SLACK_TOKENS:
        return f"{claimed:g} tokens are counted, the text that is shown has about {counted}"
    return ""


def find_claimed_tokens(table: Mapping[str, Any]) -> float | None:
    """Return the tokens that the server counts for the completion, None if it does not say."""
    completed = _find_count(_find_usage(table), "completion_tokens", "output_tokens", "candidatesTokenCount")
    return _find_count(table, "eval_count") if completed is None else completed


def count_hidden_tokens(table: Mapping[str, Any]) -> float:
    """Return the tokens that the server counts for thoughts, 0 if it counts none."""
    usage = _find_usage(table)
    for key in ("completion_tokens_details", "output_tokens_details"):
        details = usage.get(key)
        if isinstance(details, Mapping) and (count := _find_count(details, "reasoning_tokens")):
            return count
    if count := _find_count(usage, "reasoning_tokens", "thoughts_tokens", "thoughtsTokenCount", "thinking_tokens"):
        return count
    # Some servers show thoughts only in the total.
    prompt, completed, total = (_find_count(usage, f"{name}_tokens") for name in ("prompt", "completion", "total"))
    if prompt is None or total is None:
        return 0.0
    return max(0.0, total - prompt - (completed or 0.0))


def _find_usage(table: Mapping[str, Any]) -> Mapping[str, Any]:
    usage = table.get("usage") or table.get("usageMetadata")
    return usage if isinstance(usage, Mapping) else {}


def _find_count(table: Mapping[str, Any], *keys: str) -> float | None:
    return next((float(table[key]) for key in keys if is_number(table.get(key))), None)
