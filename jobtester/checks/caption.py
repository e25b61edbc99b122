"""`caption`: the answer describes the input picture."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobtester.checks.base import CheckFailedError, CheckInput, Expectation
from jobtester.checks.expected_word import is_error_message
from jobtester.checks.languages import has_small_words, is_same_language
from jobtester.checks.text import is_without_spaces, split_words
from jobtester.checks.untrusted_json import find_text, shorten
from jobtester.domain.reasons import Fault

_MAX_CHARACTERS = 2000
# A model that loops says the same few words again and again. Long descriptions repeat small words too, so the number of
# different words that is asked for stops growing at 40 words.
_MIN_UNIQUE_SHARE = 0.15
_UNIQUE_SHARE_WORDS = 40
# A worker without a model can guess by listing every usual object. A caption may list a few things that it sees, so the
# bound is set well above that. It is chosen, not measured.
_MIN_LISTED = 8
_ITEM_SEPARATOR = re.compile(r"[\n,;，、；،]")
_MAX_CHARACTERS_OF_A_WORD = 2  # in scripts that write no spaces


@dataclass(frozen=True, slots=True)
class Params:
    """`path` is the path of the caption. It has to contain one of `words`, by default one of the picture's known words.

    With `required` false any caption passes. A caption in another language or script than the words is not judged;
    words in Latin letters count as English.
    """

    path: str = "text"
    words: tuple[str, ...] = ()
    required: bool = True


def missing_inputs(params: Params, expectation: Expectation) -> str:
    """Return what the check would have to know of the picture and does not, empty if nothing."""
    picture = expectation.sent_picture
    if params.required and not params.words and not (picture and picture.caption_words):
        return "needs words, or caption_words for the picture in truth.toml beside it; or required = false"
    return ""


def check(sample: CheckInput, params: Params) -> None:
    """Check the caption. Raises CheckFailedError for the first thing that is wrong."""
    text = find_text(sample.answer, params.path, limit=_MAX_CHARACTERS)
    words = split_words(text)
    if not words:
        raise CheckFailedError("empty", f"the caption has no words: {shorten(text)}")
    if is_error_message(text):
        raise CheckFailedError("error", f"the caption is an error message: {shorten(text)}")
    picture = sample.expectation.sent_picture
    expected = params.words or (picture.caption_words if picture else ())
    is_named = not params.required or not expected or any(_has_word(words, word) for word in expected)
    is_understood = is_named or is_same_language(words, expected)
    if not is_named and is_understood:
        raise CheckFailedError("words", f"the caption names nothing that is in the picture: {shorten(text)}")
    _check_prose(text, words, is_understood=is_understood)
    # Last, so that a caption in another language is still caught where it is plainly wrong in any.
    if not is_understood:
        message = f"the caption is in another language than the words that are known of the picture: {shorten(text)}"
        raise CheckFailedError("language", message, Fault.TESTER)


def _check_prose(text: str, words: list[str], *, is_understood: bool) -> None:
    """Check that a caption describes something, and neither repeats nor lists words."""
    unique = set(words)
    if len(words) > 1 and len(unique) < max(2.0, _MIN_UNIQUE_SHARE * min(len(words), _UNIQUE_SHARE_WORDS)):
        raise CheckFailedError("repeats", f"the caption repeats a few words: {shorten(text)}")
    items = [item for item in map(split_words, _ITEM_SEPARATOR.split(text)) if item]
    if len(items) >= _MIN_LISTED and all(
        len(item) == 1 or (len(item) <= _MAX_CHARACTERS_OF_A_WORD and all(map(is_without_spaces, item)))
        for item in items
    ):
        raise CheckFailedError(
            "list", f"the caption is a list of {len(items)} words, not a description: {shorten(text)}"
        )
    if len(unique) >= _MIN_LISTED and is_understood and not has_small_words(words):
        raise CheckFailedError("list", f"the caption is a row of words, not a description: {shorten(text)}")


def _has_word(words: list[str], expected: str) -> bool:
    """Return True if the expected word is among the words, also in the plural."""
    parts = split_words(expected)
    if is_without_spaces(expected):
        return "".join(parts) in "".join(words)
    forms = {form for part in parts for form in (part, f"{part}s", f"{part}es", f"{part.removesuffix('y')}ies")}
    return any(word in forms for word in words)
