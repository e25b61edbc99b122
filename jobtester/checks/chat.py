"""`chat`: the answer is a chat completion with the expected word; unusual token counts and the like are only notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import CheckFailedError, CheckInput, NoteCollector
from jobtester.checks.completion import Completion, parse_completion
from jobtester.checks.expected_word import (
    contains_word,
    is_error_message,
    is_listing,
    normalize_text,
    remove_question,
)
from jobtester.checks.token_usage import count_hidden_tokens, find_claimed_tokens, find_contradiction
from jobtester.checks.untrusted_json import is_number, shorten
from jobtester.domain.reasons import Fault

TOKEN_LIMIT = "token_limit"  # noqa: S105 - a problem code: the model was still thinking when the tokens ran out
LIMIT_PARAMETERS = ("max_tokens", "max_completion_tokens")
_SLACK_TOKENS = 8  # by which tokenizers of different servers may differ at the limit
_USUAL_FINISH_REASONS = ("", "stop", "length", "eos", "eos_token", "stop_sequence", "end_turn", "null")
# No tokenizer puts four words into a token, or needs two tokens for a character, so these bounds blame nobody whose
# tokenizer is merely unusual.
_MAX_WORDS_PER_TOKEN = 4
_MIN_CHARACTERS_PER_TOKEN = 0.5


@dataclass(frozen=True, slots=True)
class Params:
    """`contains` is a word that the content has to contain, in any case; a repeated question does not count.

    `path` is the path of the content; by default the formats of all usual servers are read. `thinks` marks models that
    think before they answer, even invisibly.
    """

    contains: str = ""
    path: str = ""
    thinks: bool = False


def check(sample: CheckInput, params: Params) -> None:
    """Check the completion. Raises CheckFailedError for the first thing that is wrong."""
    limit = sample.expectation.find_number(*LIMIT_PARAMETERS)
    table = sample.answer if isinstance(sample.answer, Mapping) else {}
    completion = parse_completion(sample.answer, params.path, sample.notes)
    _note_oddities(table, completion, limit, sample.notes)
    messages = sample.expectation.parameters.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    question = last.get("content") if isinstance(last, dict) else None
    reply = remove_question(completion.text, question.strip() if isinstance(question, str) else "")
    is_right = bool(reply.strip()) and (not params.contains or contains_word(reply, params.contains))
    # A right answer stays right, wherever the limit fell. A wrong one says nothing if the tester's own limit cut the
    # model off before it came to its answer.
    if not is_right and _ran_out_of_tokens(table, completion, limit, thinks=params.thinks):
        shown = f" of {limit:g}" if limit else ""
        message = (
            f"the model was still thinking when the tester's limit{shown} tokens was reached; "
            "the next tick asks it with a larger limit"
        )
        sample.notes.add(TOKEN_LIMIT, message)
        raise CheckFailedError(TOKEN_LIMIT, message, Fault.TESTER)
    _check_text(table, completion, reply)
    if params.contains:
        _check_reply(completion.text, reply, params.contains, limit)
    # Without an expected word, only its end shows that an answer is whole.
    elif table.get("ended") is False or completion.finish_reason.lower() == "error":
        raise CheckFailedError("finish", f"the answer did not come to its end: {shorten(completion.text)}")


def _check_text(table: Mapping[str, Any], completion: Completion, reply: str) -> None:
    """Check that the answer says anything of its own."""
    text = completion.text
    if not text:
        thoughts = f", only thoughts: {shorten(completion.thoughts)}" if completion.thoughts else ""
        finish = f", finish reason {completion.finish_reason[:40]}" if completion.finish_reason else ""
        error = f"; the error is {shorten(table['error'])}" if table.get("error") else ""
        raise CheckFailedError("empty", f"the answer says nothing{finish}{thoughts}{error}")
    if is_error_message(text):
        raise CheckFailedError("error", f"the answer is an error message: {shorten(text)}")
    if not reply.strip():
        raise CheckFailedError("echo", f"the answer repeats the question: {shorten(text)}")


def _check_reply(text: str, reply: str, word: str, limit: float | None) -> None:
    """Check that the reply, the text without the question, says the word, and not merely by listing everything."""
    if not contains_word(reply, word):
        if reply != normalize_text(text):
            raise CheckFailedError("echo", f"the answer repeats the question: {shorten(text)}")
        raise CheckFailedError("contains", f"the answer does not say {shorten(word)}: {shorten(text)}")
    if is_listing(reply, word):
        raise CheckFailedError("list", f"the answer names {shorten(word)} only among others: {shorten(text)}")
    if limit is not None and len(reply.split()) > _MAX_WORDS_PER_TOKEN * (limit + _SLACK_TOKENS):
        raise CheckFailedError(
            "too_long", f"the answer has {len(reply.split())} words for {limit:g} tokens: {shorten(text)}"
        )


def _ran_out_of_tokens(table: Mapping[str, Any], completion: Completion, limit: float | None, *, thinks: bool) -> bool:
    """Return True if the tester's own limit ended the answer before the model came to its reply."""
    hidden, claimed = count_hidden_tokens(table), find_claimed_tokens(table)
    is_spent = limit is not None and max(claimed or 0.0, hidden) >= limit - 1
    # A few letters of thought cannot have used up the limit, whatever the server claims.
    is_long_enough = is_spent or limit is None or len(completion.thoughts) >= _MIN_CHARACTERS_PER_TOKEN * limit
    if completion.is_thought_unfinished:
        ended_early = claimed is not None and not is_spent and not completion.is_truncated
        return not ended_early and is_long_enough
    if not (completion.is_truncated or is_spent):
        return False
    if completion.text:
        return thinks
    return bool(thinks or hidden or (completion.thoughts and is_long_enough))


def _note_oddities(table: Mapping[str, Any], completion: Completion, limit: float | None, notes: NoteCollector) -> None:
    if table.get("ended") is False:
        notes.add("unfinished", "the stream has neither a finish reason nor an end mark")
    reason = completion.finish_reason
    if reason.lower() not in _USUAL_FINISH_REASONS or reason != reason.lower():
        notes.add("finish", f"the finish reason is {shorten(reason)}")
    if table.get("error") and completion.text:
        notes.add("error", f"the answer carries an error as well: {shorten(table['error'])}")
    if table.get("usage") is not None:
        _note_usage(table["usage"], limit, notes)
    if contradiction := find_contradiction(table, completion):
        notes.add("token_count", contradiction)


def _note_usage(usage: Any, limit: float | None, notes: NoteCollector) -> None:
    """Record notes on token counts that do not add up. Servers that send none are right too."""
    if not isinstance(usage, Mapping):
        notes.add("usage", f"usage is not a table: it is {shorten(usage)}")
        return
    counts = [usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total")]
    if counts == [None, None, None]:
        return
    if not all(type(count) is int and is_number(count) and count >= 0 for count in counts):
        shown = ", ".join(shorten(count, 20) for count in counts)
        notes.add("usage", f"usage has counts that are not whole numbers: {shown}")
        return
    prompt, completed, total = (int(count or 0) for count in counts)
    if prompt + completed != total:
        notes.add("usage", f"usage does not add up: {prompt} + {completed} is not {total}")
    if limit is not None and completed > limit + _SLACK_TOKENS:
        notes.add("tokens", f"{completed} tokens are counted, at most {limit:g} were requested")
