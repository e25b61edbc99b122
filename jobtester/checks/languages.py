"""Languages: whether a text is in one that a list of words can judge, by its letters and its small words."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from jobtester.checks.text import split_words

_KANA = ("HIRAGANA", "KATAKANA")
_JAPANESE = "JAPANESE"
_SMALL = 2  # different small words of other languages that are no accident

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
ENGLISH = frozenset(_ENGLISH.split())
OTHER = frozenset(_OTHER.split()) - ENGLISH


def script(word: str) -> str:
    """Return the script of a word's first letter, as Unicode names it, empty for a word without letters."""
    letter = next((char for char in word if char.isalpha()), "")
    return unicodedata.name(letter, "").partition(" ")[0] if letter else ""


def is_known(said: Sequence[str], listed: Iterable[str]) -> bool:
    """Return True if words are in a language of the listed ones; those in Latin letters are taken for English."""
    known = _scripts([part for word in listed for part in split_words(word)])
    scripts = _scripts(said)
    if sum(count for name, count in scripts.items() if name not in known) * 2 > scripts.total():
        return False
    small = set(said)
    return len(small & OTHER) < max(_SMALL, len(small & ENGLISH) + 1)


def has_small_words(said: Iterable[str]) -> bool:
    """Return True if there are words that make a sentence, or such in letters whose small words are not known."""
    return any(word in ENGLISH or word in OTHER or script(word) not in ("", "LATIN") for word in said)


def _scripts(said: Iterable[str]) -> Counter[str]:
    """Count words by their script; what stands beside Japanese syllables is Japanese too."""
    found = Counter(name for name in map(script, said) if name)
    if any(name in found for name in _KANA):
        found[_JAPANESE] = sum(found.pop(name, 0) for name in (*_KANA, "CJK"))
    return found
