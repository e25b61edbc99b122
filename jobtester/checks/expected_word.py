"""The asked word: whether a text really says it, and does not merely repeat the question or list everything."""

from __future__ import annotations

import re
import unicodedata

from jobtester.checks.languages import OTHER, script
from jobtester.checks.text import is_without_spaces, space_characters

_ECHO = 12  # characters of a question whose repetition is no accident
_INVISIBLE = ("Cf", "Me", "Mn")
_ESCAPED = re.compile(r"\\[nrt]")
_NUMBER = re.compile(r"(?<![^\W_])\d+(?:[.,]\d+)*(?![^\W_])")
_WORD = re.compile(r"[^\W_]+")
_BETWEEN = r"""[\s_*"'`“”‘’«».,…\\-]+"""  # what may stand between the words of a repeated question
_BARE = 2  # words that an item of a list has at most
_LISTED = 4  # different bare items that are a list, not an answer
_ITEMS = re.compile(r"[\n,;|/•、،]+|\s(?:and|or)\s")
# Words that a sentence has, and a list of guesses has not.
_SENTENCE = """
a an and answer ask asked as be but by can do enjoy for great have help here hope i if in is it let may me my need no
number of ok okay only or please reply requested s sure thanks that the their there this to was we welcome what will
with word would yes you your aqui das de der die el en er es est et ici il ist la le les mot numero palabra que und un
una voici wort y zahl
"""
_GLUE = frozenset(_SENTENCE.split()) | OTHER
# What continues a word in Latin letters or a number: other scripts write theirs beside it without a space.
_LATIN = r"0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_MANY = 20  # different numbers that no answer of one number has, however much is explained
_ERROR = re.compile(
    r"\W*(?:(?:internal|server|runtime|http|api|model|value|type|key|fatal|unexpected|cuda)[\s_]*){0,3}"
    r"(?:error|exception|traceback|panic)\b(?!-free)",
    re.IGNORECASE,
)


def plain_text(text: str) -> str:
    """Return a text without what only changes its look: full-width forms, accents, invisible characters.

    Digits of other scripts become the usual ones, and white space that was escaped twice is some.
    """
    whole = unicodedata.normalize("NFKC", _ESCAPED.sub(" ", text).replace("№", "№ "))
    return "".join(
        str(unicodedata.decimal(char)) if char.isdecimal() else char
        for char in whole
        if unicodedata.category(char) not in _INVISIBLE
    )


def contains_word(text: str, word: str) -> bool:
    """Return True if a text has a word, or words, not merely as part of a longer one, whatever the case and markup.

    A number may be written with separators between its thousands, or with zeros behind its point.
    """
    return _pattern(plain_text(word)).search(plain_text(text)) is not None


def without_question(text: str, question: str) -> str:
    """Return a text without the question, which may name the right answer, and which some models quote."""
    words = _WORD.findall(plain_text(question))
    whole = plain_text(text)
    if len(question.strip()) < _ECHO or not words:
        return whole
    return re.sub(rf"(?<![^\W_]){_BETWEEN.join(map(re.escape, words))}(?![^\W_])", " ", whole, flags=re.IGNORECASE)


def is_listing(text: str, word: str) -> bool:
    """Return True if a text names the word only among many others, as a worker does that guesses what is asked for."""
    whole, own = plain_text(text), _pattern(plain_text(word))
    rest = own.sub(" ", whole)
    numbers, others = set(_NUMBER.findall(rest)), _words(rest)
    digits = sum(one.isdigit() for one in others)
    if len(numbers) >= _MANY or (len(numbers) >= 2 and 2 * digits > len(others)):
        return True
    if len(set(others)) >= _LISTED - 1 and not _GLUE & set(others) and not _is_foreign(others):
        return True
    items = {tuple(_words(item)) for item in _ITEMS.split(whole)}
    bare = {item for item in items if 1 <= len(item) <= _BARE}
    return len(bare) >= _LISTED and 2 * sum(map(len, bare)) > len(set(others))


def is_error_message(text: str) -> bool:
    """Return True if a text begins as an error message does."""
    return _ERROR.match(plain_text(text)[:200]) is not None


def _words(text: str) -> list[str]:
    return _WORD.findall(space_characters(text.casefold()))


def _is_foreign(said: list[str]) -> bool:
    """Return True if most words are in other letters than Latin ones: nobody knows the small words of all scripts."""
    return sum(script(word) not in ("", "LATIN") for word in said) * 2 > len(said)


def _pattern(word: str) -> re.Pattern[str]:
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
