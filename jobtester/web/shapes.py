"""Shapes: what the API gives, as plain values: instants in Unix seconds, prices as decimal text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from jobtester.domain.reasons import Fault, Outcome, Reason, find_reason
from jobtester.domain.units import format_wei
from jobtester.store.outbox import OutboxEntry
from jobtester.store.queries import CapabilityRow, ExternalResultRow, ResultPoint
from jobtester.store.results import ResultRow
from jobtester.store.ticks import TickRow
from jobtester.web.context import ProgressView


def result(row: ResultRow) -> dict[str, Any]:
    """Give a result as lists have it: without request, answer and evidence."""
    return {
        "id": row.id,
        "tick": row.tick,
        "orchestrator": row.orchestrator,
        "service_uri": row.service_uri,
        "pipeline": row.pipeline,
        "pipeline_name": row.pipeline_name,
        "model": row.model,
        "warm": row.warm,
        "outcome": row.outcome,
        "reason": row.reason,
        "message": row.message,
        "attribution": row.attribution,
        "gateway": row.gateway,
        "targeting": row.targeting,
        "started_at": row.started_at,
        "recorded_at": row.recorded_at,
        "round_trip_s": row.round_trip_s,
        "artifact_s": row.artifact_s,
        "status": row.status,
        "measures": row.measures,
        "notes": list(row.notes),
        "deferred": row.deferred,
        "estimated_price_wei": format_wei(row.estimated_price_wei),
    }


def whole_result(row: ResultRow) -> dict[str, Any]:
    """Give a result with everything behind it."""
    known = explained(row)
    return {
        **result(row),
        "evidence": list(row.evidence),
        "fault": known.fault.value,
        "meaning": known.meaning,
        "advice": known.advice,
        "request": row.request,
        "response": row.response,
    }


def explained(row: ResultRow) -> Reason:
    """Give what the table says of a result's reason; nothing where another version knew a code that it has not."""
    try:
        return find_reason(row.reason)
    except KeyError:
        return Reason(row.reason, Outcome(row.outcome), Fault.UNKNOWN, "")


def orchestrators(cells: Iterable[CapabilityRow]) -> list[dict[str, Any]]:
    """Give orchestrators with their capabilities, of cells in the order of addresses."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        found.setdefault(cell.orchestrator, []).append(
            {
                "service_uri": cell.service_uri,
                "pipeline": cell.pipeline,
                "model": cell.model,
                "warm": cell.warm,
                "unscored_streak": cell.unscored_streak,
                "newest": _point(cell.newest),
                "recent": [_point(point) for point in cell.recent],
            }
        )
    return [{"orchestrator": address, "capabilities": capabilities} for address, capabilities in found.items()]


def tick(kept: TickRow, running: ProgressView | None) -> dict[str, Any]:
    """Give a tick with its job report; the one that runs has the report so far."""
    report: dict[str, Any] | None = kept.report or None
    if report is None and running is not None and running.report.tick == kept.id:
        report = running.report.as_json()
    if report is not None:
        report = {
            name: format_wei(value) if name == "estimated_price_wei" else value
            for name, value in report.items()
            if name not in ("tick", "trigger", "state", "started_at", "finished_at", "seed")
        }
    return {
        "id": kept.id,
        "state": kept.state,
        "trigger": kept.trigger,
        "seed": kept.seed,
        "started_at": kept.started_at,
        "finished_at": kept.finished_at,
        "report": report,
    }


def entry(one: OutboxEntry) -> dict[str, Any]:
    """Give an outbox entry."""
    return {
        "number": one.seq,
        "result": one.result,
        "tick": one.tick,
        "gateway": one.gateway,
        "state": one.state,
        "orchestrator": one.orchestrator,
        "pipeline_name": one.pipeline,
        "model": one.model,
        "created_at": one.created_at,
        "due_at": one.due_at,
        "attempts": one.attempts,
        "first_sent_at": one.first_sent_at,
        "last_sent_at": one.last_sent_at,
        "settled_at": one.settled_at,
        "problem": one.problem,
        "maybe_double": one.maybe_double,
        "stat": orjson.loads(one.body),
    }


def forwarded(one: ExternalResultRow) -> dict[str, Any]:
    """Give another tester's result."""
    return {
        "id": one.id,
        "received_at": one.received_at,
        "source": one.source,
        "kind": one.kind,
        "state": one.state,
        "stat": orjson.loads(one.stat),
    }


def _point(point: ResultPoint) -> dict[str, Any]:
    return {
        "id": point.id,
        "started_at": point.started_at,
        "round_trip_s": point.round_trip_s,
        "outcome": point.outcome,
        "reason": point.reason,
    }
