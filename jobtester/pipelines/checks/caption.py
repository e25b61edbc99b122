"""`caption`: the answer describes the picture that was sent."""

from __future__ import annotations

from dataclasses import dataclass

from jobtester.pipelines.checks import asked, paths, words
from jobtester.pipelines.checks.sample import Expectation, Sample, Wrong

_LIMIT = 2000
_SHARE = 0.15  # of the words of a short caption that are different ones, at least
_USUAL = 40  # words up to which that share is asked for; longer descriptions repeat more
_LISTED = 8  # single words that are a list of guesses


@dataclass(frozen=True, slots=True)
class Params:
    """`path` leads to the caption. One of `words` has to be in it; without any, one of the picture's known words.

    `required` false takes any caption.
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
    if params.required and expected and not any(_says(said, word) for word in expected):
        raise Wrong("words", f"the caption names nothing that is in the picture: {paths.show(text)}")
    if len(said) > 1 and len(set(said)) < max(2.0, _SHARE * min(len(said), _USUAL)):
        raise Wrong("repeats", f"the caption repeats a few words: {paths.show(text)}")
    items = [item for item in (words.of(one) for one in text.replace("\n", ",").split(",")) if item]
    if len(items) >= _LISTED and all(len(item) == 1 for item in items):
        raise Wrong("list", f"the caption is a list of {len(items)} words, not a description: {paths.show(text)}")


def _says(said: list[str], word: str) -> bool:
    wanted = words.of(word)
    forms = {*wanted, *(f"{one}s" for one in wanted)}
    return any(one in forms for one in said)
