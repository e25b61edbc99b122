"""Jobs and results that tests make without running anything."""

from __future__ import annotations

from typing import Any

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result


def make_job(number: int = 1, **changes: Any) -> Job:
    """Return a job on the orchestrator with a number."""
    fields: dict[str, Any] = {
        "id": f"job-{number}",
        "tick": "tick",
        "orchestrator": Orchestrator(f"0x{number:040x}", f"https://o{number}.example:8935"),
        "capability": Capability("llm", "model", warm=True),
        "pipeline_name": "Llm",
        "timeout_s": 60.0,
        "expected_s": 1.0,
    }
    return Job(**(fields | changes))


def make_result(code: str = "ok", job: Job | None = None, **changes: Any) -> Result:
    """Return a result with a reason."""
    fields: dict[str, Any] = {
        "job": job or make_job(),
        "verdict": Verdict.from_code(code),
        "attribution": Attribution(AttributionKind.PROVEN),
        "gateway": "gateway",
        "targeting": "query",
        "started_at": 1_700_000_000.5,
        "round_trip_s": 0.25,
        "status": 200,
    }
    return Result(**(fields | changes))
