"""The Leaderboard's scores, as it computes them from its rows."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any


def aggregated(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Score AI stats by orchestrator and region; raises ValueError where the server fails over a score."""
    rows = list(rows)
    groups: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["orchestrator"], row["region"]].append(row)
    median = median_of(rows)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (orchestrator, region), group in groups.items():
        success = statistics.fmean(row["success_rate"] for row in group)
        trip = statistics.fmean(row["round_trip_time"] for row in group)
        speed = speed_of(trip, median)
        score = 0.65 * success + 0.35 * speed if success else 0.0
        found.setdefault(orchestrator, {})[region] = {
            "success_rate": success,
            "round_trip_score": speed,
            "score": score,
        }
    return found


def median_of(rows: Iterable[dict[str, Any]]) -> float:
    """Give the median time of the successes, 0 where there is none."""
    times = [row["round_trip_time"] for row in rows if row["success_rate"] == 1 and row["round_trip_time"] != 0]
    return statistics.median(times) if times else 0.0


def speed_of(trip: float, median: float) -> float:
    """Give the round trip score: 0.8 at the median. Raises ValueError for 0/0 and for what is below nothing."""
    if median == 0:
        if trip > 0:
            return 0.0
        raise ValueError("json: unsupported value: " + ("NaN" if trip == 0 else "+Inf"))
    score: float = 0.8 ** (trip / median)
    if math.isinf(score):
        raise ValueError("json: unsupported value: +Inf")
    return score
