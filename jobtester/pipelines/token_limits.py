"""Token limits: grant more tokens to models that were still thinking when their tokens ran out."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from jobtester.checks.chat import LIMIT_PARAMETERS, TOKEN_LIMIT
from jobtester.domain.reasons import Note
from jobtester.pipelines.catalogue import Catalogue
from jobtester.pipelines.definition import Override, PipelineDefinition

_FACTOR = 4
_MAX_TOKENS = 4096  # what a job may cost by a raise that nobody configured
_MAX_MODELS = 1000


@dataclass(slots=True)
class TokenLimits:
    """Raised token limits by pipeline and model; a new process restores them from the store.

    The limit is the same for every orchestrator. It is part of the definition, so that prices are estimated with it.
    """

    _raised: dict[tuple[str, str], int] = field(default_factory=dict)

    def learn(self, definition: PipelineDefinition, model: str, notes: Iterable[Note]) -> None:
        """Raise the limit of a model if its answer carries the note that its tokens ran out."""
        if not any(note.code == TOKEN_LIMIT for note in notes):
            return
        self._raise(definition.slug, model, _token_limits(definition.for_model(model).parameters).values())

    def restore(self, requests: Iterable[tuple[str, str, str]]) -> None:
        """Raise limits by (pipeline, model, request as JSON) of results in which the tokens ran out."""
        for slug, model, request in requests:
            try:
                parameters = json.loads(request)
            except ValueError:
                continue
            if isinstance(parameters, dict):
                self._raise(slug, model, _token_limits(parameters).values())

    def _raise(self, slug: str, model: str, limits: Iterable[int]) -> None:
        limit, key = max(limits, default=0), (slug, model)
        if limit > 0 and (key in self._raised or len(self._raised) < _MAX_MODELS):
            self._raised[key] = max(self._raised.get(key, 0), min(_MAX_TOKENS, limit * _FACTOR))

    def apply(self, catalogue: Catalogue) -> Catalogue:
        """Return the catalogue with raised limits; limits that are configured higher stay."""
        if not self._raised:
            return catalogue
        changed = dict(catalogue)
        for (slug, model), limit in self._raised.items():
            definition = changed.get(slug)
            if definition is None:
                continue
            raised = {
                name: max(limit, value) for name, value in _token_limits(definition.for_model(model).parameters).items()
            }
            pattern = glob.escape(model.lower())
            own = definition.per_model.get(pattern, Override())
            override = own.model_copy(update={"parameters": {**own.parameters, **raised}})
            # Last, so that it wins over the patterns that match the model too.
            others = {name: other for name, other in definition.per_model.items() if name != pattern}
            changed[slug] = definition.model_copy(update={"per_model": {**others, pattern: override}})
            changed[slug].__dict__.pop("units_by_model", None)  # copied: the price at the lower limit
        return MappingProxyType(changed)


def _token_limits(parameters: Mapping[str, Any]) -> Mapping[str, int]:
    return {name: parameters[name] for name in LIMIT_PARAMETERS if type(parameters.get(name)) is int}
