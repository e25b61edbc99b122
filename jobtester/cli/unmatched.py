"""Explain which filters of a command match nothing, and why nobody advertises a pipeline that is defined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobtester.domain.orchestrators import BATCH_SLUGS, Capability, CapabilityKind, Orchestrator
from jobtester.domain.plan import Selection, find_definition, is_listed
from jobtester.pipelines.catalogue import Catalogue
from jobtester.settings.schema import did_you_mean

_KIND_KEYS = {
    CapabilityKind.BYOC: "an external capability; set byoc = true",
    CapabilityKind.LIVE_RUNNER: "an app of a live runner; set runner = true",
    CapabilityKind.BATCH: "a batch pipeline; leave out byoc and runner",
}


def find_unmatched(selection: Selection, orchestrators: Sequence[Orchestrator], catalogue: Catalogue) -> list[str]:
    """Return a line for each filter of the command line that no discovered orchestrator matches."""
    if not orchestrators:  # then that is the problem, and no filter
        return []
    return [
        *_unmatched_orchestrators(selection, orchestrators),
        *_unmatched_pipelines(selection, orchestrators, catalogue),
        *_unmatched_models(selection, orchestrators),
    ]


def explain_absence(slug: str, orchestrators: Sequence[Orchestrator], catalogue: Catalogue) -> str:
    """Return why a defined pipeline tests nothing that is advertised; empty if it does."""
    capabilities = list(_capabilities(orchestrators))
    if any(find_definition(catalogue, capability) == slug for capability in capabilities):
        return ""
    table = f"[pipelines.{slug}]"
    if kinds := sorted({capability.kind for capability in capabilities if capability.pipeline == slug}):
        return f"{slug} is advertised as {_KIND_KEYS[kinds[0]]} in {table}"
    definition = catalogue[slug]
    if definition.byoc or definition.runner or slug in BATCH_SLUGS.values():
        return f"no discovered orchestrator advertises {slug}"
    return (
        f"nobody advertises {slug}: network discovery knows only go-livepeer's own pipelines; "
        f"set byoc = true or runner = true in {table}, or list it in [[discovery.orchestrators]]"
    )


def _unmatched_orchestrators(selection: Selection, orchestrators: Sequence[Orchestrator]) -> Iterator[str]:
    names = [name for orchestrator in orchestrators for name in (orchestrator.address, orchestrator.service_uri)]
    for name in selection.orchestrators:
        if not any(is_listed(orchestrator, (name,)) for orchestrator in orchestrators):
            yield f"no orchestrator {name} was discovered{did_you_mean(name, names)}"


def _unmatched_pipelines(
    selection: Selection, orchestrators: Sequence[Orchestrator], catalogue: Catalogue
) -> Iterator[str]:
    capabilities = list(_capabilities(orchestrators))
    advertised = {capability.pipeline for capability in capabilities}
    for name in selection.pipelines:
        tested = {capability.pipeline for capability in capabilities if find_definition(catalogue, capability) == name}
        if name not in catalogue and name not in advertised:
            yield f"no pipeline {name} is defined{did_you_mean(name, sorted({*catalogue, *advertised}))}"
        elif name in catalogue and name not in tested and tested:
            yield f"{name} tests apps of live runners; name the app: --pipeline {min(tested)}"
        elif name in catalogue and not _is_tested(name, capabilities, catalogue):
            yield explain_absence(name, orchestrators, catalogue)


def _is_tested(name: str, capabilities: Sequence[Capability], catalogue: Catalogue) -> bool:
    return any(
        capability.pipeline == name and find_definition(catalogue, capability) is not None
        for capability in capabilities
    )


def _unmatched_models(selection: Selection, orchestrators: Sequence[Orchestrator]) -> Iterator[str]:
    capabilities = list(_capabilities(orchestrators))
    # Models of the chosen pipelines; of all where none of those is advertised, which has a line of its own.
    chosen = [item for item in capabilities if item.pipeline in selection.pipelines] or capabilities
    models = sorted({capability.model for capability in chosen})
    for name in selection.models:
        if name not in models:
            yield f"nobody advertises the model {name}{did_you_mean(name, models)}"


def _capabilities(orchestrators: Sequence[Orchestrator]) -> Iterator[Capability]:
    return (capability for orchestrator in orchestrators for capability in orchestrator.capabilities)
