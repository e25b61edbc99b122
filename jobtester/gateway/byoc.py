"""BYOC: the request header that pins a job to one orchestrator on any gateway."""

from __future__ import annotations

import base64
import math

import orjson

BYOC_PREFIX = "/process/request"
HANG_UP_AFTER_S = 15.0  # hanging up first would cost the orchestrator a slot for ever (docs/pipelines.md)


def byoc_header(capability: str, service_uri: str, timeout_s: float) -> dict[str, str]:
    """Make the `Livepeer` header for one job; both inner objects travel as texts, as the gateway wants them."""
    parameters = {"orchestrators": {"include": [service_uri], "exclude": []}}
    job = {
        "request": "{}",
        "parameters": orjson.dumps(parameters).decode(),
        "capability": capability,
        "timeout_seconds": byoc_worker_seconds(timeout_s),
    }
    return {"Livepeer": base64.b64encode(orjson.dumps(job)).decode()}


def byoc_worker_seconds(timeout_s: float) -> int:
    """Give the whole seconds that the worker has, at least one."""
    return max(1, math.ceil(timeout_s))


def byoc_timeout_s(timeout_s: float) -> float:
    """Give how long to wait ourselves: always longer than the worker may take."""
    return byoc_worker_seconds(timeout_s) + HANG_UP_AFTER_S
