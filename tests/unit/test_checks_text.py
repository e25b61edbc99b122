"""Texts are compared as a reader compares them: words, numbers, languages, and values shown in short."""

from __future__ import annotations

from typing import Any

import pytest

from jobtester.checks.base import CheckFailedError
from jobtester.checks.expected_word import contains_word, is_error_message, is_listing, remove_question
from jobtester.checks.languages import find_script, has_small_words, is_same_language
from jobtester.checks.media import entry_url, find_entries
from jobtester.checks.text import split_words, word_error_rate
from jobtester.checks.untrusted_json import find_text, find_value, is_number, shorten


@pytest.mark.parametrize(
    ("text", "word", "is_contained"),
    [
        ("It is **42**.", "42", True),
        ("It is 142.", "42", False),
        ("It is 42.5.", "42", False),
        ("It is 42.0.", "42", True),
        ("It is 1,042.", "42", False),
        ("It is 1,042.", "1042", True),
        ("It is \u0664\u0662.", "42", True),
        ("LIGHTHOUSE!", "lighthouse", True),
        ("lighthouses", "lighthouse", False),
        ("答案是lighthouse。", "lighthouse", True),
        ("light\u200bhouse", "lighthouse", True),
    ],
)
def test_a_word_counts_only_on_its_own(text: str, word: str, is_contained: bool) -> None:
    """Case, markup, invisible characters and digits of other scripts do not matter; longer words and numbers do."""
    assert contains_word(text, word) is is_contained


@pytest.mark.parametrize(
    ("text", "is_list"),
    [
        ("The number is 42.", False),
        ("42, that is, forty-two", False),
        ("41 42 43", True),
        ("red, 42, blue, green, yellow", True),
        ("red blue green 42", True),
        ("I think of 42, and of no other: not of 41, nor of 43, which are near.", False),
    ],
)
def test_a_list_of_guesses_is_no_answer(text: str, is_list: bool) -> None:
    """The word among many others is a guess; an explanation that names a few others is not."""
    assert is_listing(text, "42") is is_list


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Which number is next? 42", " ? 42"),
        ("**Which** number is  next: 42", "** : 42"),
        ("which NUMBER is next", " "),
        ("Next is 42", "Next is 42"),
    ],
)
def test_a_quoted_question_is_removed(text: str, rest: str) -> None:
    """However it is quoted, the question may name the right answer, and does not count as one."""
    assert remove_question(text, "Which number is next?") == rest


def test_a_short_question_is_not_removed() -> None:
    """Its words may well be in a right answer by accident."""
    assert remove_question("Say 42: 42", "Say 42") == "Say 42: 42"


@pytest.mark.parametrize(
    ("text", "is_error"),
    [
        ("Error: out of memory", True),
        ("**Internal Server Error**", True),
        ("CUDA error: device-side assert", True),
        ("An error-free run", False),
        ("Error-free", False),
        ("The error is 42", False),
    ],
)
def test_an_error_message_is_recognized_by_its_begin(text: str, is_error: bool) -> None:
    """A text about errors is no error."""
    assert is_error_message(text) is is_error


@pytest.mark.parametrize(
    ("text", "expected", "is_same"),
    [
        ("a red ball on the grass", ["ball"], True),
        ("una pelota roja sobre la hierba", ["ball"], False),
        ("мяч на траве", ["ball"], False),
        ("мяч на траве", ["мяч"], True),
        ("a ball of the brand мяч", ["ball"], True),
        ("青い空の下、草の上に犬がいます", ["ボール"], True),
        ("草地上有一个红色的球", ["ボール"], False),
    ],
)
def test_languages_are_recognized_by_letters_and_small_words(text: str, expected: list[str], is_same: bool) -> None:
    """One foreign name changes nothing, and characters beside Japanese syllables are Japanese."""
    assert is_same_language(split_words(text), expected) is is_same


def test_small_words_make_a_sentence() -> None:
    """Of scripts whose small words are not known, any word may be one."""
    assert has_small_words(["ball", "on", "grass"])
    assert has_small_words(["мяч"])
    assert not has_small_words(["ball", "grass", "sky", "42"])
    assert [find_script(word) for word in ("ball", "мяч", "42", "")] == ["LATIN", "CYRILLIC", "", ""]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It’s a BALL—red.", ["its", "a", "ball", "red"]),
        ("café naïve", ["cafe", "naive"]),
        ("红球 ball", ["红", "球", "ball"]),
        ("हैं", ["ह"]),
        ("…", []),
    ],
)
def test_words_are_split_as_they_sound(text: str, words: list[str]) -> None:
    """Case, punctuation and accents do not matter, and characters stand for words where there are no spaces."""
    assert split_words(text) == words


@pytest.mark.parametrize(
    ("transcript", "spoken", "rate"),
    [("a b c", "a b c", 0), ("a x c", "a b c", 1 / 3), ("a c", "a b c", 1 / 3), ("", "a b", 1), ("a b", "", 2)],
)
def test_the_word_error_rate_counts_changes(transcript: str, spoken: str, rate: float) -> None:
    """Words replaced, left out and added count one each, per word spoken."""
    assert word_error_rate(transcript.split(), spoken.split()) == rate


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        ({}, "an empty table"),
        ({"a": 1, "b": 2}, "a table with a, b"),
        (dict.fromkeys("abcdefgh"), "a table with a, b, c, d, e, f …"),
        ([], "an empty list"),
        ([1] * 9, "a list of 9"),
        ("a  word\n", '"a word"'),
        ("x" * 20, '"xxxxxxxxxx…"'),
        ("\ud800", '"?"'),
        (10**400, "a number of 1329 bits"),
        (1.5, "1.5"),
    ],
)
def test_values_are_shown_in_short(value: Any, shown: str) -> None:
    """Whatever a stranger sends, what is shown of it is one short line of proper text."""
    assert shorten(value, 10) == shown


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("a.1.b", ""),
        ("a.2", "missing"),
        ("a.x", "missing"),
        ("a.0", "not_text"),
        ("blank", "empty"),
        ("a.1.c", "too_long"),
    ],
)
def test_a_text_is_found_at_its_path(path: str, problem: str) -> None:
    """Or the problem says why there is none."""
    answer = {"a": [7, {"b": " text ", "c": "x" * 11}], "blank": "  "}
    try:
        assert find_text(answer, path, limit=10) == "text"
    except CheckFailedError as error:
        assert error.problem == problem  # noqa: PT017 - the empty problem is the other branch
    else:
        assert not problem


def test_an_empty_path_is_the_answer_itself() -> None:
    """Some servers answer with the bare value."""
    assert find_value([1], "") == [1]


@pytest.mark.parametrize(
    ("value", "is_usual"),
    [(1, True), (-1.5, True), (True, False), ("1", False), (None, False), (float("inf"), False), (10**30, False)],
)
def test_numbers_are_finite_and_of_usual_size(value: Any, is_usual: bool) -> None:
    """Booleans are no numbers, though Python takes them for such."""
    assert is_number(value) is is_usual


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("/stream/a.png", "/stream/a.png"),
        ({"url": "https://store.example/a.png"}, "https://store.example/a.png"),
        ("/9j/" + "A" * 5000, None),
        ("data:image/png;base64,AAAA", None),
        ("/a\n.png", None),
        ({"url": 7}, None),
        (None, None),
    ],
)
def test_addresses_are_distinguished_from_base64(entry: Any, url: str | None) -> None:
    """A JPEG in base64 begins as a path does, and is longer than any path."""
    assert entry_url(entry) == url


@pytest.mark.parametrize(("value", "problem"), [(None, "none"), ([], "none"), (["/a"] * 17, "count")])
def test_entries_are_at_least_one_and_not_too_many(value: Any, problem: str) -> None:
    """Each problem has its own code."""
    with pytest.raises(CheckFailedError) as caught:
        find_entries({"images": value}, "images")
    assert caught.value.problem == problem


def test_a_single_entry_counts_as_a_list_of_one() -> None:
    """Some pipelines return one file without a list around it."""
    assert find_entries({"audio": {"url": "/a"}}, "audio") == [{"url": "/a"}]
