"""Rows: results as the store gives them back, plain and ready to be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import orjson


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One kept result; `seq` grows with every record and is the key for paging."""

    seq: int
    id: str
    tick: str
    orchestrator: str
    service_uri: str
    pipeline: str
    pipeline_name: str
    model: str
    warm: bool
    outcome: str
    reason: str
    message: str
    attribution: str
    evidence: tuple[str, ...]
    gateway: str
    targeting: str
    started_at: float
    recorded_at: float
    round_trip_s: float
    artifact_s: float | None
    status: int | None
    measures: dict[str, float]
    deferred: int
    estimated_price_wei: int | None
    request: str
    response: str
    notes: tuple[dict[str, str], ...] = ()

    @classmethod
    def from_sql(cls, row: tuple[Any, ...]) -> Self:
        """Make a Row of what SELECT gives."""
        values = dict(zip(COLUMNS, row, strict=True))
        values["warm"] = bool(values["warm"])
        values["evidence"] = tuple(orjson.loads(values["evidence"]))
        values["notes"] = tuple(orjson.loads(values["notes"]))
        values["measures"] = orjson.loads(values["measures"])
        values["estimated_price_wei"] = (
            int(values["estimated_price_wei"]) if values["estimated_price_wei"] is not None else None
        )
        return cls(**values)


COLUMNS = (
    "seq", "id", "tick", "orchestrator", "service_uri", "pipeline", "pipeline_name", "model", "warm", "outcome", "reason",
    "message", "attribution", "evidence", "gateway", "targeting", "started_at", "recorded_at", "round_trip_s",
    "artifact_s", "status", "measures", "deferred", "estimated_price_wei", "request", "response",
    "notes",
)  # fmt: skip
SELECT = "SELECT " + ", ".join(f"r.{name}" for name in COLUMNS) + " FROM results r"


def storable_text(given: str) -> str:
    """Give a text as it can be kept: lone surrogates, which some answers contain, have no bytes."""
    return given if given.isascii() else given.encode("utf-8", "replace").decode()
