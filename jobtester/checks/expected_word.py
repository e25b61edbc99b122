"""Decide whether a text contains the expected word as an answer, not as a repeated question or a list of words."""

from __future__ import annotations

import re
import unicodedata

from jobtester.checks.languages import FOREIGN_WORDS, find_script
from jobtester.checks.text import is_without_spaces, space_characters

_MIN_QUESTION = 12  # characters of a question from which on its repetition is no accident
_INVISIBLE = ("Cf", "Me", "Mn")
_ESCAPED_BLANK = re.compile(r"\\[nrt]")
_NUMBER = re.compile(r"(?<![^\W_])\d+(?:[.,]\d+)*(?![^\W_])")
_WORD = re.compile(r"[^\W_]+")
_QUESTION_GAP = r"""[\s_*"'`“”‘’«».,…\\-]+"""  # what may stand between the words of a repeated question
# Four different items of at most two words are a list. An answer that explains itself may name the word with one or
# two others ("the number 42, or forty-two"), and is left alone.
_MAX_ITEM_WORDS = 2
_MIN_ITEMS = 4
_ITEM_SEPARATOR = re.compile(r"[\n,;|/•、،]+|\s(?:and|or)\s")
# Words that a sentence has, and a list of guesses has not.
_SENTENCE_WORDS = """
a an and answer ask asked as be but by can do enjoy for great have help here hope i if in is it let may me my need no
number of ok okay only or please reply requested s sure thanks that the their there this to was we welcome what will
with word would yes you your aqui das de der die el en er es est et ici il ist la le les mot numero palabra que und un
una voici wort y zahl
"""
_GLUE_WORDS = frozenset(_SENTENCE_WORDS.split()) | FOREIGN_WORDS
# What continues a word in Latin letters, or a number. Other scripts are left out: they write such a word without a
# space beside their own.
_LATIN = r"0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_MIN_NUMBERS = 20  # different ones, that no answer of one number has, however much it explains
_ERROR_START = re.compile(
    r"\W*(?:(?:internal|server|runtime|http|api|model|value|type|key|fatal|unexpected|cuda)[\s_]*){0,3}"
    r"(?:error|exception|traceback|panic)\b(?!-free)",
    re.IGNORECASE,
)


def normalize_text(text: str) -> str:
    """Return a text without what only changes its look: full-width forms, accents, invisible characters.

    Digits of other scripts become the usual ones, and white space that was escaped twice becomes a space.
    """
    text = _ESCAPED_BLANK.sub(" ", text)
    if text.isascii():  # nothing else can change, and most answers are
        return text
    whole = unicodedata.normalize("NFKC", text.replace("№", "№ "))
    return "".join(
        str(unicodedata.decimal(char)) if char.isdecimal() else char
        for char in whole
        if unicodedata.category(char) not in _INVISIBLE
    )


def contains_word(text: str, word: str) -> bool:
    """Return True if a text has a word, or words, in any case and markup, and not merely as part of a longer word.

    A number may be written with separators between its thousands, or with zeros behind its point.
    """
    return _compile_word(normalize_text(word)).search(normalize_text(text)) is not None


def remove_question(text: str, question: str) -> str:
    """Return a normalized text without the question, which may name the right answer, and which some models quote."""
    words = _WORD.findall(normalize_text(question))
    whole = normalize_text(text)
    if len(question.strip()) < _MIN_QUESTION or not words:
        return whole
    quoted = _QUESTION_GAP.join(map(re.escape, words))
    return re.sub(rf"(?<![^\W_]){quoted}(?![^\W_])", " ", whole, flags=re.IGNORECASE)


def is_listing(text: str, word: str) -> bool:
    """Return True if a text names the word only among many others, as a worker does that guesses."""
    whole = normalize_text(text)
    rest = _compile_word(normalize_text(word)).sub(" ", whole)
    numbers, others = set(_NUMBER.findall(rest)), _split_words(rest)
    digits = sum(other.isdigit() for other in others)
    # Numbers beside the right one: very many, or hardly anything but numbers.
    if len(numbers) >= _MIN_NUMBERS or (len(numbers) >= 2 and 2 * digits > len(others)):
        return True
    # Words in a row without a single one that a sentence would have. Nobody knows the small words of all scripts, so
    # this holds for Latin letters only.
    is_foreign = sum(find_script(other) not in ("", "LATIN") for other in others) * 2 > len(others)
    if len(set(others)) >= _MIN_ITEMS - 1 and not _GLUE_WORDS & set(others) and not is_foreign:
        return True
    # A list between commas or lines that makes up most of the text; an explanation around a short list does not.
    items = {tuple(_split_words(item)) for item in _ITEM_SEPARATOR.split(whole)}
    short = {item for item in items if 1 <= len(item) <= _MAX_ITEM_WORDS}
    return len(short) >= _MIN_ITEMS and 2 * sum(map(len, short)) > len(set(others))


def is_error_message(text: str) -> bool:
    """Return True if a text begins as an error message does."""
    return _ERROR_START.match(normalize_text(text)[:200]) is not None


def _split_words(text: str) -> list[str]:
    return _WORD.findall(space_characters(text.casefold()))


def _compile_word(word: str) -> re.Pattern[str]:
    """Return the pattern of a normalized word on its own: not as part of a longer word or number."""
    before, after = "(?<![^\\W_])", "(?![^\\W_])"
    if word.isascii():
        before, after = f"(?<![{_LATIN}])", f"(?![{_LATIN}])"
    elif is_without_spaces(word):
        before = after = ""
    if not word.isdigit():
        return re.compile(f"{before}{re.escape(word)}{after}", re.IGNORECASE)
    groups = [word[max(0, end - 3) : end] for end in range(len(word), 0, -3)][::-1]
    grouped = r"[,.'’ _]?".join(groups)
    return re.compile(rf"{before}(?<!\d[.,]){grouped}{after}(?![.,](?!0+(?:\D|\Z))\d)")
