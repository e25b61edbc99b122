"""Rows: results as the store gives them back, plain and ready to be shown."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import orjson

from jobtester.domain.results import Result


@dataclass(frozen=True, slots=True)
class Row:
    """One kept result; `seq` grows with every record and is the key for paging."""

    seq: int
    id: str
    tick: str
    address: str
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
    artefact_s: float | None
    status: int | None
    measures: dict[str, float]
    deferred: int
    price_wei: int | None
    request: str
    response: str


COLUMNS = (
    "seq", "id", "tick", "address", "service_uri", "pipeline", "pipeline_name", "model", "warm", "outcome", "reason",
    "message", "attribution", "evidence", "gateway", "targeting", "started_at", "recorded_at", "round_trip_s",
    "artefact_s", "status", "measures", "deferred", "price_wei", "request", "response",
)  # fmt: skip
SELECT = "SELECT " + ", ".join(f"r.{name}" for name in COLUMNS) + " FROM results r"
INSERT = f"INSERT INTO results ({', '.join(COLUMNS[1:])}) VALUES ({', '.join('?' * (len(COLUMNS) - 1))}) ON CONFLICT (id) DO NOTHING"


def of(row: tuple[Any, ...]) -> Row:
    """Make a Row of what SELECT gives."""
    values = dict(zip(COLUMNS, row, strict=True))
    values["warm"] = bool(values["warm"])
    values["evidence"] = tuple(orjson.loads(values["evidence"]))
    values["measures"] = orjson.loads(values["measures"])
    values["price_wei"] = int(values["price_wei"]) if values["price_wei"] is not None else None
    return Row(**values)


def text(given: str) -> str:
    """Give a text as it can be kept: lone surrogates, which some answers contain, have no bytes."""
    return given.encode("utf-8", "replace").decode()


def insert(db: sqlite3.Connection, result: Result, recorded_at: float) -> int | None:
    """Keep one result and give its seq, None if its job has one already."""
    job, verdict = result.job, result.verdict
    evidence = [text(line) for line in result.attribution.evidence]
    cursor = db.execute(
        INSERT,
        (
            result.id, job.tick, job.orchestrator.address, job.target.service_uri, job.pipeline, job.pipeline_name,
            job.model, int(job.warm), verdict.outcome.value, verdict.code, text(verdict.message),
            result.attribution.kind.value, orjson.dumps(evidence).decode(), result.gateway,
            result.targeting, result.started_at, recorded_at, result.round_trip_s, result.artefact_s, result.status,
            orjson.dumps(dict(result.measures)).decode(), result.deferred,
            str(job.price_wei) if job.price_wei is not None else None, text(result.request), text(result.response),
        ),
    )  # fmt: skip
    return cursor.lastrowid if cursor.rowcount == 1 else None
