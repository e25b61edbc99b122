"""Usage: how many tokens a completion has, as its maker counts them and as its text proves.

Makers count differently, some of them twice, and nobody can look into a tokenizer from outside. So what is measured
rests on the text alone: it is the same for the same text, whatever is booked for it.
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
_MORE = 1.5  # times what the text proves, above which a count is contradicted
_HIDDEN = 3.0  # times what the text proves, above which there are rather thoughts that are not shown
_SLACK = 8  # tokens that are counted and show nowhere: ends, marks of a template
_PIECES = 4  # pieces of a stream from which on counting each of them twice is no accident
_PIECES_SLACK = 2


def count_text_tokens(read: Completion) -> int:
    """Return how many tokens the text of a completion has, thoughts that are shown included."""
    return sum(len(_TOKEN.findall(text)) for text in (read.said, read.thought))


def countable_tokens(answer: Any, read: Completion) -> int | None:
    """Return the tokens that a rate may be measured on; None where much was written that is not shown, or nothing."""
    count = count_text_tokens(read)
    table = answer if isinstance(answer, Mapping) else {}
    if not read.thought and max(hidden_thoughts(table), (claimed_tokens(table) or 0.0) - _HIDDEN * count) > _SLACK:
        return None
    return count or None


def find_contradiction(table: Mapping[str, Any], read: Completion) -> str:
    """Return in what a maker's count contradicts its text, empty if in nothing."""
    count, own, pieces = claimed_tokens(table), count_text_tokens(read), table.get("chunks")
    if count is None or hidden_thoughts(table):
        return ""
    if type(pieces) is int and pieces >= _PIECES and not read.thought and abs(count - 2 * pieces) <= _PIECES_SLACK:
        return f"{count:g} tokens are counted for {pieces} pieces of a stream: each of them seems to count twice"
    if count > _MORE * own + _SLACK:
        return f"{count:g} tokens are counted, the text that is shown has about {own}"
    return ""


def claimed_tokens(table: Mapping[str, Any]) -> float | None:
    """Return how many tokens the maker counts for what was written, None where it does not say."""
    completed = _count(_of(table), "completion_tokens", "output_tokens", "candidatesTokenCount")
    return _count(table, "eval_count") if completed is None else completed


def hidden_thoughts(table: Mapping[str, Any]) -> float:
    """Return how many tokens of thoughts are counted though not shown, 0 where nothing is said of them."""
    usage = _of(table)
    for name in ("completion_tokens_details", "output_tokens_details"):
        details = usage.get(name)
        if isinstance(details, Mapping) and (count := _count(details, "reasoning_tokens")):
            return count
    if count := _count(usage, "reasoning_tokens", "thoughts_tokens", "thoughtsTokenCount", "thinking_tokens"):
        return count
    prompt, completed, total = (_count(usage, f"{name}_tokens") for name in ("prompt", "completion", "total"))
    if prompt is None or total is None:
        return 0.0
    return max(0.0, total - prompt - (completed or 0.0))


def _of(table: Mapping[str, Any]) -> Mapping[str, Any]:
    usage = table.get("usage") or table.get("usageMetadata")
    return usage if isinstance(usage, Mapping) else {}


def _count(table: Mapping[str, Any], *names: str) -> float | None:
    return next((float(table[name]) for name in names if is_number(table.get(name))), None)
