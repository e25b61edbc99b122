"""`caption`: the answer describes the picture that was sent."""

from __future__ import annotations

from dataclasses import dataclass

from jobtester.pipelines.checks import paths, words
from jobtester.pipelines.checks.sample import Expectation, Sample, Wrong

_LIMIT = 2000


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
    picture = sample.expectation.picture()
    expected = params.words or (picture.caption_words if picture else ())
    if params.required and expected and not any(_says(said, word) for word in expected):
        raise Wrong("words", f"the caption names nothing that is in the picture: {paths.show(text)}")


def _says(said: list[str], word: str) -> bool:
    wanted = words.of(word)
    forms = {*wanted, *(f"{one}s" for one in wanted)}
    return any(one in forms for one in said)
