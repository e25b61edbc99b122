"""What the Leaderboard's reading routes compute from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobtester.simulator.leaderboard.rows import Row
from jobtester.simulator.leaderboard.scores import (
    aggregate_scores,
    median_success_time,
    round_trip_score,
    total_score,
)

DAY_S = 86_400.0


class BadQueryError(Exception):
    """The server responds 400 with this text."""


def select_rows(rows: Sequence[Row], query: Mapping[str, str], now: float) -> list[Row]:
    """Return the rows that the usual parameters select, oldest first."""
    model, pipeline = query.get("model", ""), query.get("pipeline", "")
    if bool(model) != bool(pipeline):
        raise BadQueryError("pipeline required" if model else "model required")
    since, until = _parse_period(query, now)
    job_type = query.get("job_type", "")
    if job_type not in ("ai", "transcoding"):
        job_type = "ai" if model else "transcoding"
    orchestrator, region = query.get("orchestrator", "").lower(), query.get("region", "").upper()
    return [
        row
        for row in rows
        if since <= row.insert_time <= until
        and (job_type == "ai") == bool(row.stat.get("model") and row.stat.get("pipeline"))
        and (not orchestrator or row.stat["orchestrator"] == orchestrator)
        and (not region or row.stat["region"] == region)
        and (not model or (row.stat.get("model") == model and row.stat.get("pipeline") == pipeline))
    ]


def aggregate_stats(rows: Sequence[Row], query: Mapping[str, str], now: float) -> dict[str, Any]:
    """Return scores by orchestrator and region. An orchestrator's score compares it with all the others."""
    orchestrator = query.get("orchestrator", "").lower()
    others = {name: value for name, value in query.items() if name != "orchestrator"}
    scores = aggregate_scores(row.stat for row in select_rows(rows, others, now))
    if not orchestrator:
        return scores
    return {orchestrator: scores[orchestrator]} if orchestrator in scores else {}


def find_top_score(rows: Sequence[Row], orchestrator: str, now: float) -> dict[str, Any]:
    """Return the best score of the last day, of one orchestrator if it is named."""
    recent = [
        row.stat
        for row in rows
        if row.insert_time >= now - DAY_S and row.stat.get("pipeline") and row.stat.get("model")
    ]
    best: tuple[float, float, dict[str, Any]] | None = None
    for stat in recent:
        if orchestrator and stat["orchestrator"] != orchestrator:
            continue
        group = [
            other
            for other in recent
            if all(other[key] == stat[key] for key in ("orchestrator", "region", "model", "pipeline"))
        ]
        success = sum(other["success_rate"] for other in group) / len(group)
        time_s = sum(other["round_trip_time"] for other in group) / len(group)
        if best is None or (success, -time_s) > (best[0], -best[1]):
            best = (success, time_s, stat)
    if best is None:
        return {}
    success, time_s, stat = best
    same_model = [
        other for other in recent if other["model"] == stat["model"] and other["pipeline"] == stat["pipeline"]
    ]
    value = total_score(success, round_trip_score(time_s, median_success_time(same_model)))
    return {key: stat[key] for key in ("region", "orchestrator", "model", "pipeline")} | {"value": value}


def list_pipelines(rows: Sequence[Row], query: Mapping[str, str], now: float) -> dict[str, Any]:
    """Return every pipeline with its models and regions. ValueError where the server fails over a row."""
    since, until = _parse_period(query, now)
    region = query.get("region", "").upper()
    pipelines: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        stat = row.stat
        if not since <= row.insert_time <= until or (region and stat["region"] != region) or not stat.get("pipeline"):
            continue
        if not stat.get("model"):
            raise ValueError("can't scan into dest[1]: cannot assign NULL to *string")
        entry = pipelines.setdefault(stat["pipeline"], {"models": set(), "regions": set()})
        entry["models"].add(stat["model"])
        entry["regions"].add(stat["region"])
    return {
        "pipelines": [
            {"id": name, "models": sorted(entry["models"]), "regions": sorted(entry["regions"])}
            for name, entry in sorted(pipelines.items())
        ]
    }


def _parse_period(query: Mapping[str, str], now: float) -> tuple[float, float]:
    return _parse_time(query.get("since"), now - DAY_S), _parse_time(query.get("until"), now)


def _parse_time(text: str | None, default: float) -> float:
    if not text:
        return default
    try:
        return float(text)
    except ValueError as error:
        raise BadQueryError(f'strconv.ParseFloat: parsing "{text}": invalid syntax') from error
