"""Requests: the bytes of a job, made once for each pipeline and model of a tick."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from jobtester.checks.base import Expectation
from jobtester.checks.registry import make_check
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import Catalogue
from jobtester.pipelines.definition import Override, PipelineDefinition
from jobtester.pipelines.multipart import encode_multipart
from jobtester.pipelines.parameter_choices import choose, pick_index

_JSON = "application/json"
_FIRST_TOKEN = re.compile(rb'"content"\s*:\s*"[^"]')  # the role comes before, often with an empty text


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: POST `body` to `path`.

    `parameters` is what is shown of it, files by name. `expectation` is what a right answer looks like. `first_token`
    matches what comes with a streamed answer's first token, None where nothing is streamed.
    """

    path: str
    content_type: str
    body: bytes
    parameters: Mapping[str, Any]
    expectation: Expectation
    first_token: re.Pattern[bytes] | None = None


@dataclass(slots=True)
class Requests:
    """The requests of one tick. What is chosen depends on the tick's seed alone, never on the orchestrator."""

    catalogue: Catalogue
    assets: Assets
    seed: int
    _made: dict[tuple[str, str], Request] = field(default_factory=dict)

    def build(self, definition: PipelineDefinition, model: str) -> Request:
        """Give the request for a pipeline and model, the same object for every orchestrator."""
        key = (definition.slug, model)
        if key not in self._made:
            self._made[key] = self._make(definition, model)
        return self._made[key]

    def _make(self, definition: PipelineDefinition, model: str) -> Request:
        whole = definition.for_model(model, self._variant(definition))
        fields: dict[str, Any] = {}
        if not (definition.byoc and model == definition.slug):  # the capability's name stands for a model nobody names
            fields[definition.model_field] = model
        fields |= choose(whole.parameters, self.seed, definition.slug)
        if definition.stream is not None:
            fields["stream"] = definition.stream
        files = {name: self.assets.get(file) for name, file in whole.files.items()}
        if definition.is_multipart:
            contents = {name: (asset.name, asset.content) for name, asset in files.items()}
            body, content_type = encode_multipart(fields, contents)
        else:
            body, content_type = orjson.dumps(fields), _JSON
        checks = tuple(make_check(table) for table in definition.check_tables(whole.expect))
        truths = {name: asset.metadata for name, asset in files.items()}
        return Request(
            path=definition.uri,
            content_type=content_type,
            body=body,
            parameters={**fields, **whole.files},
            expectation=Expectation(checks, fields, truths, is_streamed=bool(definition.stream)),
            first_token=_FIRST_TOKEN if definition.stream else None,
        )

    def _variant(self, definition: PipelineDefinition) -> Override | None:
        """Give the tick's variant, None for a pipeline that has none."""
        if not definition.variants:
            return None
        return definition.variants[pick_index(len(definition.variants), self.seed, f"{definition.slug} variants")]
