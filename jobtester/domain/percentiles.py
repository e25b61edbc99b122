"""Percentiles as the tester shows them everywhere: always one of the values, never a mean of two."""

from __future__ import annotations

from collections.abc import Collection


def percentile(values: Collection[float], share: float) -> float:
    """Return the smallest value that at least a share of the values does not exceed; there has to be one.

    `share` counts in whole percent, because 0.07 of 100 floats is a little more than 7.
    """
    rank = -(-len(values) * round(share * 100) // 100)
    return sorted(values)[max(0, rank - 1)]
