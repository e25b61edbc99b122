"""Words: texts brought to what was said, and how far two of them are apart."""

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
_ALONE = re.compile(rf"([{WITHOUT_SPACES}])")


def split_words(text: str) -> list[str]:
    """Return the words of a text: case, punctuation and accents do not matter.

    Nobody can tell the words of scripts that write no spaces; their characters stand for them.
    """
    plain = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    kept = (char if char.isalnum() else "" if char == "'" or _is_mark(char) else " " for char in plain)
    return space_characters("".join(kept)).split()


def space_characters(text: str) -> str:
    """Return a text with spaces around each character of a script that writes none."""
    return _ALONE.sub(r" \1 ", text)


def is_without_spaces(text: str) -> bool:
    """Return True if a text has characters of a script that writes no spaces between words."""
    return _ALONE.search(text) is not None


def word_error_rate(heard: Sequence[str], said: Sequence[str]) -> float:
    """Return the word error rate: changes that turn one into the other, per word said; 1 or more: nothing in common.

    Takes time in proportion to the product of the lengths, so bound them first.
    """
    row = list(range(len(said) + 1))
    for i, word in enumerate(heard, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(said, 1):
            above, row[j] = row[j], min(above + (word != right), row[j] + 1, row[j - 1] + 1)
    return row[-1] / max(len(said), 1)


def _is_mark(char: str) -> bool:
    """Return True for accents, and for the vowel signs of scripts that write them as marks, within words."""
    return unicodedata.combining(char) != 0 or unicodedata.category(char).startswith("M")
