"""Split texts into comparable words, and measure the distance between two texts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Scripts that write no spaces between words, as the inside of a character class: Thai, Lao, Myanmar, Khmer, and what
# Chinese and Japanese are written with.
WITHOUT_SPACES = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(rf"([{WITHOUT_SPACES}])")


def split_words(text: str) -> list[str]:
    """Return the words of a text: case, punctuation and accents do not matter.

    Words of scripts without spaces cannot be told apart; each of their characters stands for one.
    """
    plain = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    # Accents, and the vowel signs that some scripts write as marks, are inside words: they go without a gap.
    return space_characters(
        "".join(
            char
            if char.isalnum()
            else ""
            if char == "'" or unicodedata.combining(char) or unicodedata.category(char).startswith("M")
            else " "
            for char in plain
        )
    ).split()


def space_characters(text: str) -> str:
    """Return a text with spaces around each character of a script that writes none."""
    return _UNSPACED.sub(r" \1 ", text)


def is_without_spaces(text: str) -> bool:
    """Return True if a text has characters of a script that writes no spaces between words."""
    return _UNSPACED.search(text) is not None


def word_error_rate(heard: Sequence[str], spoken: Sequence[str]) -> float:
    """Return the word error rate: the changes that turn one into the other, per word spoken; from 1 on, nothing fits.

    Takes time in proportion to the product of the lengths, so bound them first.
    """
    # Levenshtein's distance over words, with one row of its table in memory.
    row = list(range(len(spoken) + 1))
    for i, word in enumerate(heard, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(spoken, 1):
            above, row[j] = row[j], min(above + (word != right), row[j] + 1, row[j - 1] + 1)
    return row[-1] / max(len(spoken), 1)
