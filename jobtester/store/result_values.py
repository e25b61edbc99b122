"""Turn results and stats into rows of the store."""

from __future__ import annotations

from typing import Any

import orjson

from jobtester.domain.orchestrators import Capability
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat


def storable_text(text: str) -> str:
    """Return a text with lone surrogates replaced: some answers contain them, and UTF-8 has no bytes for them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def result_values(result: Result, now: float) -> dict[str, Any]:
    """Return a result as a row of the store, recorded at `now`."""
    job, verdict = result.job, result.verdict
    evidence = [storable_text(line) for line in result.attribution.evidence]
    notes = [{key: storable_text(value) for key, value in note.as_json().items()} for note in result.notes]
    return {
        "id": result.id,
        "tick": job.tick,
        "orchestrator": job.orchestrator.address,
        "service_uri": job.target.service_uri,
        "pipeline": job.pipeline,
        "pipeline_name": job.pipeline_name,
        "model": job.model,
        "warm": int(job.warm),
        "outcome": verdict.outcome.value,
        "reason": verdict.code,
        "message": storable_text(verdict.message),
        "attribution": result.attribution.kind.value,
        "evidence": orjson.dumps(evidence).decode(),
        "gateway": result.gateway,
        "targeting": result.targeting,
        "started_at": result.started_at,
        "recorded_at": now,
        "round_trip_s": result.round_trip_s,
        "artifact_s": result.artifact_s,
        "status": result.status,
        "measures": orjson.dumps(dict(result.measures)).decode(),
        "deferred": result.deferred,
        "estimated_price_wei": str(job.price_wei) if job.price_wei is not None else None,
        "request": storable_text(result.request),
        "response": storable_text(result.response),
        "notes": orjson.dumps(notes).decode(),
        "kind": job.capability.kind.value,
        "runner": orjson.dumps(_runner_values(job.capability)).decode(),
        "details": storable_text(orjson.dumps(result.details.as_json()).decode()),
    }


def _runner_values(capability: Capability) -> dict[str, Any]:
    """Return how a live runner was listed; empty for other capabilities."""
    runner = capability.runner
    if runner is None:
        return {}
    price = capability.price
    return {
        "mode": runner.mode,
        "price_wei": str(price.wei_per_unit) if price is not None else None,
        "unit": runner.unit,
        "gpu": runner.gpu,
        "schema_url": runner.schema_url,
    }


def stat_values(
    stat: Stat, result_id: str, tick: str, gateway: str, state: str, now: float, due_at: float
) -> dict[str, Any]:
    """Return a stat as a row of the outbox, created at `now` and due at `due_at`."""
    return {
        "result": result_id,
        "tick": tick,
        "gateway": gateway,
        "state": state,
        "body": stat.body,
        "region": stat.region,
        "orchestrator": stat.orchestrator,
        "pipeline": stat.pipeline,
        "model": stat.model,
        "timestamp": stat.timestamp,
        "round_trip_s": stat.round_trip_s,
        "created_at": now,
        "due_at": due_at,
    }
