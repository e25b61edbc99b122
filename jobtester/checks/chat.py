"""`chat`: the answer is a chat completion that says what was asked for; what only books it is noted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import CheckFailedError, CheckInput, NoteCollector
from jobtester.checks.completion import Completion, parse_completion
from jobtester.checks.expected_word import contains_word, is_error_message, is_listing, plain_text, without_question
from jobtester.checks.token_usage import claimed_tokens, find_contradiction, hidden_thoughts
from jobtester.checks.untrusted_json import is_number, shorten
from jobtester.domain.reasons import Fault

TOKEN_LIMIT = "token_limit"  # noqa: S105 - the problem's code: the model was still thinking when the tokens ran out
LIMIT_PARAMETERS = ("max_tokens", "max_completion_tokens")
_EXTRA_TOKENS = 8  # tokenizers of different makers count a little differently
_FINISHED = ("", "stop", "length", "eos", "eos_token", "stop_sequence", "end_turn", "null")
_WORDS_PER_TOKEN = 4  # far above what any tokenizer does
_CHARS_PER_TOKEN = 0.5  # far below what any tokenizer does


@dataclass(frozen=True, slots=True)
class Params:
    """`contains` has to be in the content as a word of its own, whatever its case; a repeated question does not count.

    `path` leads to the content. Without a path the usual makers' shapes are understood. `thinks` says that the model is
    known to think before it answers, also where it shows nothing of that.
    """

    contains: str = ""
    path: str = ""
    thinks: bool = False


def check(sample: CheckInput, params: Params) -> None:
    """Read the completion. Raises CheckFailedError for the first thing that is not right."""
    answer, notes = sample.answer, sample.notes
    limit = sample.expectation.find_number(*LIMIT_PARAMETERS)
    table = answer if isinstance(answer, Mapping) else {}
    read = parse_completion(answer, params.path, notes)
    _note_bookkeeping(table, read, limit, notes)
    own = without_question(read.said, _question(sample.expectation.parameters))
    right = bool(own.strip()) and (not params.contains or contains_word(own, params.contains))
    if not right and _ran_out(table, read, limit, params.thinks):
        shown = f" of {limit:g}" if limit else ""
        message = (
            f"the model was still thinking when the tester's limit{shown} tokens was reached; "
            "it is asked with a larger limit next time"
        )
        notes.add(TOKEN_LIMIT, message)
        raise CheckFailedError(TOKEN_LIMIT, message, Fault.TESTER)
    _check_said(table, read, own, params, limit)


def _check_said(table: Mapping[str, Any], read: Completion, own: str, params: Params, limit: float | None) -> None:
    said = read.said
    if not said:
        thought = f", only thoughts: {shorten(read.thought)}" if read.thought else ""
        finish = f", finish reason {read.finish[:40]}" if read.finish else ""
        raise CheckFailedError("empty", f"the answer says nothing{finish}{thought}{_error_shown(table)}")
    if is_error_message(said):
        raise CheckFailedError("error", f"the answer is an error's message: {shorten(said)}")
    if not own.strip():
        raise CheckFailedError("echo", f"the answer repeats the question: {shorten(said)}")
    if not params.contains:  # then nothing but its end shows that an answer is whole
        if table.get("ended") is False or read.finish.lower() == "error":
            raise CheckFailedError("finish", f"the answer did not come to its end: {shorten(said)}")
        return
    if not contains_word(own, params.contains):
        if own != plain_text(said):
            raise CheckFailedError("echo", f"the answer repeats the question: {shorten(said)}")
        raise CheckFailedError("contains", f"the answer does not say {shorten(params.contains)}: {shorten(said)}")
    if is_listing(own, params.contains):
        raise CheckFailedError(
            "list", f"the answer names {shorten(params.contains)} only among others: {shorten(said)}"
        )
    if limit is not None and len(own.split()) > _WORDS_PER_TOKEN * (limit + _EXTRA_TOKENS):
        raise CheckFailedError(
            "too_long", f"the answer has {len(own.split())} words for {limit:g} tokens: {shorten(said)}"
        )


def _ran_out(table: Mapping[str, Any], read: Completion, limit: float | None, thinks: bool) -> bool:
    """Return True if the tester's own limit ended the answer before the model had come to what it says."""
    hidden, completed = hidden_thoughts(table), claimed_tokens(table)
    spent = limit is not None and max(completed or 0.0, hidden) >= limit - 1
    if read.thinking_unfinished:
        ended_early = completed is not None and not spent and not read.cut
        return not ended_early and _long_enough(read, limit, spent)
    if not (read.cut or spent):
        return False
    if read.said:
        return thinks
    return bool(thinks or hidden or (read.thought and _long_enough(read, limit, spent)))


def _long_enough(read: Completion, limit: float | None, spent: bool) -> bool:
    """Return True if what was thought can have used up the limit: a few letters cannot."""
    return spent or limit is None or len(read.thought) >= _CHARS_PER_TOKEN * limit


def _note_bookkeeping(table: Mapping[str, Any], read: Completion, limit: float | None, notes: NoteCollector) -> None:
    if table.get("ended") is False:
        notes.add("unfinished", "the stream has neither a finish reason nor an end mark")
    if read.finish.lower() not in _FINISHED or read.finish != read.finish.lower():
        notes.add("finish", f"the finish reason is {shorten(read.finish)}")
    if table.get("error") and read.said:
        notes.add("error", f"an error stands beside the answer: {shorten(table['error'])}")
    if table.get("usage") is not None:
        _note_usage(table["usage"], limit, notes)
    if odd := find_contradiction(table, read):
        notes.add("token_count", odd)


def _note_usage(counted: Any, limit: float | None, notes: NoteCollector) -> None:
    """Note counts that do not add up; makers that send none are right too."""
    if not isinstance(counted, Mapping):
        notes.add("usage", f"usage is no table: it is {shorten(counted)}")
        return
    counts = [counted.get(f"{name}_tokens") for name in ("prompt", "completion", "total")]
    if counts == [None, None, None]:
        return
    if not all(type(count) is int and is_number(count) and count >= 0 for count in counts):
        notes.add("usage", f"usage has counts that are none: {', '.join(shorten(count, 20) for count in counts)}")
        return
    prompt, completed, total = (int(count or 0) for count in counts)
    if prompt + completed != total:
        notes.add("usage", f"usage does not add up: {prompt} + {completed} is not {total}")
    if limit is not None and completed > limit + _EXTRA_TOKENS:
        notes.add("tokens", f"{completed} tokens are counted, at most {limit:g} were asked for")


def _error_shown(table: Mapping[str, Any]) -> str:
    return f"; the error is {shorten(table['error'])}" if table.get("error") else ""


def _question(parameters: Any) -> str:
    """Return the last thing that was said to the model, if it was a text."""
    messages = parameters.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    return content.strip() if isinstance(content, str) else ""
