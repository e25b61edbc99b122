"""Token limits: models that were still thinking when their tokens ran out are asked with more of them next time."""

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
_MOST = 4096  # tokens that are asked for of the tester's own accord
_MOST_MODELS = 1000


@dataclass(slots=True)
class TokenLimits:
    """Remembers how many tokens a model of a pipeline has to be granted; a new process restores it from the store.

    The limit is the same for every orchestrator. It is part of the definition, so that prices are estimated with it.
    """

    _raised: dict[tuple[str, str], int] = field(default_factory=dict)

    def learn(self, definition: PipelineDefinition, model: str, notes: Iterable[Note]) -> None:
        """Raise the limit of a model whose answer carries the note that its tokens ran out."""
        if not any(note.code == TOKEN_LIMIT for note in notes):
            return
        self._raise(definition.slug, model, _limits(definition, model).values())

    def restore(self, requests: Iterable[tuple[str, str, str]]) -> None:
        """Raise the limits of models by the requests, as JSON, with which their tokens ran out in earlier processes."""
        for slug, model, request in requests:
            try:
                parameters = json.loads(request)
            except ValueError:
                continue
            if isinstance(parameters, dict):
                self._raise(slug, model, _numbers(parameters).values())

    def _raise(self, slug: str, model: str, limits: Iterable[int]) -> None:
        asked, key = max(limits, default=0), (slug, model)
        if asked > 0 and (key in self._raised or len(self._raised) < _MOST_MODELS):
            self._raised[key] = max(self._raised.get(key, 0), min(_MOST, asked * _FACTOR))

    def apply(self, catalogue: Catalogue) -> Catalogue:
        """Return a catalogue with the raised limits; what is configured higher stays."""
        if not self._raised:
            return catalogue
        changed = dict(catalogue)
        for (slug, model), limit in self._raised.items():
            definition = changed.get(slug)
            if definition is None:
                continue
            raised = {name: max(limit, value) for name, value in _limits(definition, model).items()}
            pattern = glob.escape(model.lower())
            own = definition.per_model.get(pattern, Override())
            override = own.model_copy(update={"parameters": {**own.parameters, **raised}})
            others = {name: each for name, each in definition.per_model.items() if name != pattern}
            changed[slug] = definition.model_copy(update={"per_model": {**others, pattern: override}})
            changed[slug].__dict__.pop("units_by_model", None)  # the copy has taken over what the lower limit costs
        return MappingProxyType(changed)


def _limits(definition: PipelineDefinition, model: str) -> Mapping[str, int]:
    return _numbers(definition.for_model(model).parameters)


def _numbers(parameters: Mapping[str, Any]) -> Mapping[str, int]:
    return {name: parameters[name] for name in LIMIT_PARAMETERS if type(parameters.get(name)) is int}
