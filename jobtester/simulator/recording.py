"""Orchestrators out of a recorded getNetworkCapabilities answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jobtester.simulator import names, scenario


def orchestrators(raw: bytes, latency_s: scenario.Seconds) -> tuple[scenario.OrchestratorSpec, ...]:
    """Make one spec per entry; each serves the batch models and external capabilities it advertises."""
    entries = json.loads(raw).get("orchestrators") or []
    return tuple(
        scenario.OrchestratorSpec(
            address=entry["address"].lower(),
            local_address=(entry.get("local_address") or "").lower(),
            service_uri=entry.get("orch_uri") or "",
            models=tuple(_models(entry, latency_s)),
            byoc=tuple(_byoc(entry, latency_s)),
        )
        for entry in entries
    )


def _models(entry: dict[str, Any], latency_s: scenario.Seconds) -> Iterator[scenario.ModelSpec]:
    constraints = (entry.get("capabilities") or {}).get("constraints") or {}
    for number, constraint in (constraints.get("PerCapability") or {}).items():
        slug = names.SLUG.get(int(number), "")
        if slug not in names.NUMBER or slug == "byoc":
            continue
        for model, state in (constraint.get("models") or {}).items():
            yield scenario.ModelSpec(
                pipeline=slug,
                model=model,
                warm=bool(state.get("warm")),
                capacity=max(1, int(state.get("capacity") or 0)),
                latency_s=latency_s,
            )


def _byoc(entry: dict[str, Any], latency_s: scenario.Seconds) -> Iterator[scenario.ByocSpec]:
    options = entry.get("capability_options") or {}
    for price in entry.get("capabilities_prices") or []:
        if price.get("capability") == names.BYOC and price.get("constraint"):
            name = str(price["constraint"])
            known = options.get(name) or [{}]
            first = known[0] if isinstance(known, list) and known and isinstance(known[0], dict) else {}
            yield scenario.ByocSpec(capability=name, model=str(first.get("model", "")), capacity=4, latency_s=latency_s)
