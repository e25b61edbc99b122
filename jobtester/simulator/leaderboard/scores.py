"""The Leaderboard's scores, as it computes them from its rows."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any


def aggregate_scores(stats: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return scores of AI stats by orchestrator and region. ValueError where the server fails over a score."""
    stats = list(stats)
    groups: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for stat in stats:
        groups[stat["orchestrator"], stat["region"]].append(stat)
    median = median_success_time(stats)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for (orchestrator, region), group in groups.items():
        success = statistics.fmean(stat["success_rate"] for stat in group)
        round_trip = round_trip_score(statistics.fmean(stat["round_trip_time"] for stat in group), median)
        scores.setdefault(orchestrator, {})[region] = {
            "success_rate": success,
            "round_trip_score": round_trip,
            "score": total_score(success, round_trip),
        }
    return scores


def total_score(success: float, round_trip: float) -> float:
    """Return the score that a success rate and a round trip score make; 0 without any success."""
    return 0.65 * success + 0.35 * round_trip if success else 0.0


def median_success_time(stats: Iterable[dict[str, Any]]) -> float:
    """Return the median round trip time of the successes, 0 if there is none."""
    times = [stat["round_trip_time"] for stat in stats if stat["success_rate"] == 1 and stat["round_trip_time"] != 0]
    return statistics.median(times) if times else 0.0


def round_trip_score(time_s: float, median_s: float) -> float:
    """Return the round trip score, 0.8 at the median. ValueError where Go computes NaN or +Inf, which JSON refuses."""
    if median_s == 0:
        if time_s > 0:
            return 0.0
        raise ValueError("json: unsupported value: " + ("NaN" if time_s == 0 else "+Inf"))
    score: float = 0.8 ** (time_s / median_s)
    if math.isinf(score):
        raise ValueError("json: unsupported value: +Inf")
    return score
