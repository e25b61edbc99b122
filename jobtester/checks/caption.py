"""`caption`: the answer describes the picture that was sent."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobtester.checks.base import CheckFailedError, CheckInput, Expectation
from jobtester.checks.expected_word import is_error_message
from jobtester.checks.languages import has_small_words, is_known
from jobtester.checks.text import is_without_spaces, split_words
from jobtester.checks.untrusted_json import find_text, shorten
from jobtester.domain.reasons import Fault

_LIMIT = 2000
_SHARE = 0.15  # of the words of a short caption that are different ones, at least
_USUAL = 40  # words up to which that share is asked for; longer descriptions repeat more
_LISTED = 8  # single words that are a list of guesses
_ITEMS = re.compile(r"[\n,;，、；،]")
_SHORT = 2  # characters that are one word, in scripts that write no spaces


@dataclass(frozen=True, slots=True)
class Params:
    """`path` leads to the caption. One of `words` has to be in it; without any, one of the picture's known words.

    `required` false takes any caption. One in another language or script than the words is held against nobody; words
    in Latin letters are taken for English.
    """

    path: str = "text"
    words: tuple[str, ...] = ()
    required: bool = True


def missing_inputs(params: Params, expectation: Expectation) -> str:
    """Say what has to be known of the picture."""
    picture = expectation.sent_picture
    if params.required and not params.words and not (picture and picture.caption_words):
        return "needs words, or caption_words for the picture in truth.toml beside it; or required = false"
    return ""


def check(sample: CheckInput, params: Params) -> None:
    """Read the caption. Raises CheckFailedError for the first thing that is not right."""
    text = find_text(sample.answer, params.path, limit=_LIMIT)
    said = split_words(text)
    if not said:
        raise CheckFailedError("empty", f"the caption has no words: {shorten(text)}")
    if is_error_message(text):
        raise CheckFailedError("error", f"the caption is an error's message: {shorten(text)}")
    picture = sample.expectation.sent_picture
    expected = params.words or (picture.caption_words if picture else ())
    named = not params.required or not expected or any(_says(said, word) for word in expected)
    known = named or is_known(said, expected)
    if not named and known:
        raise CheckFailedError("words", f"the caption names nothing that is in the picture: {shorten(text)}")
    if len(said) > 1 and len(set(said)) < max(2.0, _SHARE * min(len(said), _USUAL)):
        raise CheckFailedError("repeats", f"the caption repeats a few words: {shorten(text)}")
    items = [item for item in map(split_words, _ITEMS.split(text)) if item]
    if len(items) >= _LISTED and all(map(_is_one_word, items)):
        raise CheckFailedError(
            "list", f"the caption is a list of {len(items)} words, not a description: {shorten(text)}"
        )
    if len(set(said)) >= _LISTED and known and not has_small_words(said):
        raise CheckFailedError("list", f"the caption is a row of words, not a description: {shorten(text)}")
    if not known:
        message = f"the caption is in another language than the words that are known of the picture: {shorten(text)}"
        raise CheckFailedError("language", message, Fault.TESTER)


def _is_one_word(item: list[str]) -> bool:
    return len(item) == 1 or (len(item) <= _SHORT and all(map(is_without_spaces, item)))


def _says(said: list[str], word: str) -> bool:
    wanted = split_words(word)
    if is_without_spaces(word):
        return "".join(wanted) in "".join(said)
    forms = {form for one in wanted for form in (one, f"{one}s", f"{one}es", f"{one.removesuffix('y')}ies")}
    return any(one in forms for one in said)
