"""Requests: the bytes of a job, made once for each pipeline and model of a tick."""

from __future__ import annotations

import hashlib
import json
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


_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


def encode_multipart(fields: Mapping[str, Any], files: Mapping[str, tuple[str, bytes]]) -> tuple[bytes, str]:
    """Encode fields as text and files with their names; give the body and its content type.

    The boundary follows from the content, so that equal content gives equal bytes and no content can contain it.
    """
    parts = [_part(f'name="{_quoted(name)}"', form_text(value).encode()) for name, value in fields.items()]
    parts += [
        _part(f'name="{_quoted(name)}"; filename="{_quoted(filename)}"', content, "application/octet-stream")
        for name, (filename, content) in files.items()
    ]
    boundary = hashlib.sha256(b"".join(parts)).hexdigest()[:32].encode()
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts) + b"--%b--\r\n" % boundary
    return body, f"multipart/form-data; boundary={boundary.decode()}"


def form_text(value: Any) -> str:
    """Write a value as the text of a form field: true and false, whole numbers in base 10, anything nested as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _part(disposition: str, content: bytes, kind: str = "") -> bytes:
    head = f"Content-Disposition: form-data; {disposition}\r\n"
    head += f"Content-Type: {kind}\r\n" if kind else ""
    return head.encode() + b"\r\n" + content


def _quoted(text: str) -> str:
    return text.translate(_ESCAPES)
