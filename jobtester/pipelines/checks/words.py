"""Words: texts brought to what was said, and how far two of them are apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def of(text: str) -> list[str]:
    """Give the words of a text: case, punctuation and accents do not matter."""
    plain = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    kept = (char if char.isalnum() else "" if char == "'" or unicodedata.combining(char) else " " for char in plain)
    return "".join(kept).split()


def error_rate(heard: Sequence[str], said: Sequence[str]) -> float:
    """Give the word error rate: changes that turn one into the other, per word said; 1 or more is nothing in common.

    Takes time in proportion to the product of the lengths, so bound them first.
    """
    row = list(range(len(said) + 1))
    for i, word in enumerate(heard, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(said, 1):
            above, row[j] = row[j], min(above + (word != right), row[j] + 1, row[j - 1] + 1)
    return row[-1] / max(len(said), 1)
