"""Words are compared one by one, and each check's problems have advice of their own."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from jobtester.checks.advice import _BY_PROBLEM, advise
from jobtester.checks.registry import CHECK_TYPES
from jobtester.web.comparison import compare_answer, compare_transcripts


def details(check: str, inputs: dict[str, Any] | None = None, **parameters: Any) -> dict[str, Any]:
    """Return the details of a result with one check."""
    return {"checks": [{"check": check, "parameters": parameters}], "inputs": {"file": inputs or {}}}


def test_missing_and_extra_words_are_marked() -> None:
    """What stands in one text and not in the other at its place is marked in both."""
    compared = compare_transcripts("A red doll lies, on green grass today.", "a red ball lies on the green grass")
    assert [word.word for word in compared.expected if not word.matches] == ["ball", "the"]
    assert [word.word for word in compared.received if not word.matches] == ["doll", "today"]
    assert compared.error_rate == pytest.approx(3 / 8)


@pytest.mark.parametrize(
    ("response", "is_contained"),
    [
        (orjson.dumps({"choices": [{"message": {"role": "assistant", "content": "It is 42."}}]}).decode(), True),
        (orjson.dumps({"choices": [{"message": {"role": "assistant", "content": "It is 421."}}]}).decode(), False),
        (
            orjson.dumps(
                {"message": 'data: {"choices":[{"delta":{"content":"4"}}]}\n\ndata: {"choices":[{"delta":'
                 '{"content":"2"}}]}\n\ndata: [DONE]', "bytes": 120}
            ).decode(),
            True,
        ),
    ],
    ids=["right", "another number", "a stream"],
)  # fmt: skip
def test_an_expected_word_is_looked_for(response: str, is_contained: bool) -> None:
    """By the check's own rules, in completions of JSON and in streams of which the beginning is kept."""
    compared = compare_answer(response, details("chat", contains="42"))
    assert compared is not None
    assert [(word.word, word.matches) for word in compared.expected] == [("42", is_contained)]
    assert compared.error_rate is None


@pytest.mark.parametrize("response", ["", "not json", '{"text": 7}', "[]", '{"message": 1, "bytes": 2}', "null"])
@pytest.mark.parametrize("check", ["transcript", "caption", "chat", "image", "unknown"])
def test_answers_without_text_compare_with_nothing(check: str, response: str) -> None:
    """Whatever is stored of an answer, the page shows no comparison rather than an error."""
    inputs = {"transcript": "a red ball", "caption_words": ["ball"]}
    assert compare_answer(response, details(check, inputs, contains="42")) is None


def test_a_caption_is_searched_for_the_words_of_its_picture() -> None:
    """The words that are known of the picture are the expected ones, unless the check names others."""
    response = '{"text": "a ball on grass"}'
    for parameters in ({}, {"words": ["ball", "sun"]}):
        compared = compare_answer(response, details("caption", {"caption_words": ["ball", "sun"]}, **parameters))
        assert compared is not None
        assert [word.matches for word in compared.expected] == [True, False]


def test_every_check_has_advice_of_its_own() -> None:
    """No two checks say the same about an unknown problem but for those of media, and none says nothing."""
    assert all(advise(name, "whatever") for name in CHECK_TYPES)
    assert {check for check, _ in _BY_PROBLEM} <= {*CHECK_TYPES, "body"}
    assert advise("image", "flat") != advise("image", "size") != advise("image", "whatever")
    assert advise("image", "unsupported").startswith("Nothing")
