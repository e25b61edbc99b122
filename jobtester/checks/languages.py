"""Recognize by letters and common words whether a text is in a language that a list of words can judge."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from jobtester.checks.text import split_words

_KANA = ("HIRAGANA", "KATAKANA")
_JAPANESE = "JAPANESE"
# English has words that look like small words of other languages. Two different ones in a text are no accident.
_MIN_FOREIGN_WORDS = 2

# Small words of other languages in Latin letters, without accents; those that English has too are taken out below.
_ENGLISH = """
a an and are as at be behind beside by for from has have her his in into is it its near next no of off on or over some
that the their there this to under up view was with
"""
_OTHER = """
al auf auch aus avec bei beim bir bu cevap com con cu da dans das de dei del della den der des det di dies diese do du
e een ein eine einem einen einer einige el em en er es est et ett fur gli ha hat het i ici ikinci il im ist ja je jest
kan la las le les lo los med mit mot na nad nel nella nie nicht no nos och og olan olur op os ovo para pe per po pod
por pour pres que sa se sie sind som sobre su sul sulla sur te ten til um uma un una unas und une uno uns unos van ve
vom von voor w wie y z za ze zum zur
"""
ENGLISH_WORDS = frozenset(_ENGLISH.split())
FOREIGN_WORDS = frozenset(_OTHER.split()) - ENGLISH_WORDS


def find_script(word: str) -> str:
    """Return the script of a word's first letter, as Unicode names it, empty for a word without letters."""
    letter = next((char for char in word if char.isalpha()), "")
    return unicodedata.name(letter, "").partition(" ")[0] if letter else ""


def is_same_language(words: Sequence[str], expected: Iterable[str]) -> bool:
    """Return True if words seem to be in the language of the expected ones; Latin letters are taken for English."""
    expected_scripts = _count_scripts([part for word in expected for part in split_words(word)])
    scripts = _count_scripts(words)
    # A foreign name in a text changes nothing, so the majority decides.
    if sum(count for name, count in scripts.items() if name not in expected_scripts) * 2 > scripts.total():
        return False
    unique = set(words)
    return len(unique & FOREIGN_WORDS) < max(_MIN_FOREIGN_WORDS, len(unique & ENGLISH_WORDS) + 1)


def has_small_words(words: Iterable[str]) -> bool:
    """Return True if there are words that make a sentence, or words in letters whose small words are not known here."""
    return any(
        word in ENGLISH_WORDS or word in FOREIGN_WORDS or find_script(word) not in ("", "LATIN") for word in words
    )


def _count_scripts(words: Iterable[str]) -> Counter[str]:
    counts = Counter(name for name in map(find_script, words) if name)
    # Japanese mixes its syllables with Chinese characters; beside a syllable they are Japanese too.
    if any(name in counts for name in _KANA):
        counts[_JAPANESE] = sum(counts.pop(name, 0) for name in (*_KANA, "CJK"))
    return counts
