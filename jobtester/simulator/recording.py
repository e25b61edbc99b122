"""Orchestrators out of a recorded getNetworkCapabilities answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from jobtester.simulator import names, scenario


def orchestrators(raw: bytes, latency_s: scenario.Seconds) -> tuple[scenario.OrchestratorSpec, ...]:
    """Make one spec per node; each serves the batch models and external capabilities it advertises.

    Entries of the same address and URI are one node with the models of them all. ValueError where `raw` is not such
    an answer.
    """
    try:
        entries = json.loads(raw).get("orchestrators") or []
        specs = [_spec(entry, latency_s) for entry in entries]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a getNetworkCapabilities answer: {error!r}") from error
    nodes: dict[tuple[str, str], scenario.OrchestratorSpec] = {}
    for spec in specs:
        key = (spec.address, spec.service_uri)
        known = nodes.get(key, dataclasses.replace(spec, models=(), byoc=()))
        nodes[key] = dataclasses.replace(
            known,
            models=tuple(dict.fromkeys(known.models + spec.models)),
            byoc=tuple(dict.fromkeys(known.byoc + spec.byoc)),
        )
    return tuple(nodes.values())


def _spec(entry: dict[str, Any], latency_s: scenario.Seconds) -> scenario.OrchestratorSpec:
    return scenario.OrchestratorSpec(
        address=entry["address"].lower(),
        local_address=(entry.get("local_address") or "").lower(),
        service_uri=entry.get("orch_uri") or "",
        models=tuple(_models(entry, latency_s)),
        byoc=tuple(_byoc(entry, latency_s)),
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
