"""Prices: whole numbers of wei as JSON carries them, decimal text, since they outgrow every reader's numbers."""

from __future__ import annotations


def text(wei: int | str | None) -> str | None:
    """Write an amount exactly, as decimal text; None where it is not known.

    Texts are taken as they are: reports that an earlier version kept hold numbers, newer ones hold texts.
    """
    return None if wei is None else str(wei)
