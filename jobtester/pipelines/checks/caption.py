"""`caption`: the answer describes the picture that was sent."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobtester.domain.outcome import Fault
from jobtester.pipelines.checks import asked, languages, paths, words
from jobtester.pipelines.checks.sample import Expectation, Sample, Wrong

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


def needs(params: Params, expectation: Expectation) -> str:
    """Say what has to be known of the picture."""
    picture = expectation.picture()
    if params.required and not params.words and not (picture and picture.caption_words):
        return "needs words, or caption_words for the picture in truth.toml beside it; or required = false"
    return ""


def check(sample: Sample, params: Params) -> None:
    """Read the caption. Raises Wrong for the first thing that is not right."""
    text = paths.text(sample.answer, params.path, limit=_LIMIT)
    said = words.of(text)
    if not said:
        raise Wrong("empty", f"the caption has no words: {paths.show(text)}")
    if asked.is_error(text):
        raise Wrong("error", f"the caption is an error's message: {paths.show(text)}")
    picture = sample.expectation.picture()
    expected = params.words or (picture.caption_words if picture else ())
    named = not params.required or not expected or any(_says(said, word) for word in expected)
    known = named or languages.is_known(said, expected)
    if not named and known:
        raise Wrong("words", f"the caption names nothing that is in the picture: {paths.show(text)}")
    if len(said) > 1 and len(set(said)) < max(2.0, _SHARE * min(len(said), _USUAL)):
        raise Wrong("repeats", f"the caption repeats a few words: {paths.show(text)}")
    items = [item for item in map(words.of, _ITEMS.split(text)) if item]
    if len(items) >= _LISTED and all(map(_is_one_word, items)):
        raise Wrong("list", f"the caption is a list of {len(items)} words, not a description: {paths.show(text)}")
    if len(set(said)) >= _LISTED and known and not languages.has_small_words(said):
        raise Wrong("list", f"the caption is a row of words, not a description: {paths.show(text)}")
    if not known:
        message = f"the caption is in another language than the words that are known of the picture: {paths.show(text)}"
        raise Wrong("language", message, Fault.TESTER)


def _is_one_word(item: list[str]) -> bool:
    return len(item) == 1 or (len(item) <= _SHORT and all(map(words.is_without_spaces, item)))


def _says(said: list[str], word: str) -> bool:
    wanted = words.of(word)
    if words.is_without_spaces(word):
        return "".join(wanted) in "".join(said)
    forms = {form for one in wanted for form in (one, f"{one}s", f"{one}es", f"{one.removesuffix('y')}ies")}
    return any(one in forms for one in said)
