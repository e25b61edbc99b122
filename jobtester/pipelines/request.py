"""Requests: build the bytes of a job, once for each pipeline and model of a tick."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from jobtester.checks.base import Expectation
from jobtester.checks.registry import make_check
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import Catalogue
from jobtester.pipelines.definition import PipelineDefinition
from jobtester.pipelines.parameter_choices import choose, pick_index

_JSON = "application/json"
_FORM_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
_FIRST_TOKEN = re.compile(rb'"content"\s*:\s*"[^"]')  # the role comes before, often with an empty text


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: `body` to `path`, with POST unless `method` says otherwise.

    `parameters` are shown and posted with the result, files by name. `expectation` is what a right answer looks like.
    `first_token` matches in a streamed answer as soon as its first token is there, None where nothing is streamed.
    `takes_any_answer` means that not even JSON is expected. `update` are parameters that a live video changes once.
    """

    path: str
    content_type: str
    body: bytes
    parameters: Mapping[str, Any]
    expectation: Expectation
    first_token: re.Pattern[bytes] | None = None
    method: str = "POST"
    takes_any_answer: bool = False
    update: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Requests:
    """The requests of one tick. What is chosen depends on the tick's seed alone, never on the orchestrator.

    Orchestrators are compared with each other, so all of them get the same bytes.
    """

    catalogue: Catalogue
    assets: Assets
    seed: int
    _requests: dict[tuple[str, str], Request] = field(default_factory=dict)

    def build(self, definition: PipelineDefinition, model: str) -> Request:
        """Return the request for a pipeline and model, the same object for every orchestrator."""
        key = (definition.slug, model)
        if key not in self._requests:
            self._requests[key] = self._build(definition, model)
        return self._requests[key]

    def _build(self, definition: PipelineDefinition, model: str) -> Request:
        variant = None
        if definition.variants:
            place = f"{definition.slug} variants"
            variant = definition.variants[pick_index(len(definition.variants), self.seed, place)]
        effective = definition.for_model(model, variant)
        fields: dict[str, Any] = {}
        # An external capability that names no model is advertised under its own name, which its worker does not know.
        # Of a live runner's app the "model" is the version, which the app does not know either. A stream's is named in
        # the call that starts it.
        if not (definition.runner or definition.video or (definition.byoc and model == definition.slug)):
            fields[definition.model_field] = model
        fields |= choose(effective.parameters, self.seed, definition.slug)
        if definition.stream is not None:
            fields["stream"] = definition.stream
        files = {name: self.assets.get(file) for name, file in effective.files.items()}
        if definition.is_multipart:
            contents = {name: (asset.name, asset.content) for name, asset in files.items()}
            body, content_type = encode_multipart(fields, contents)
        elif definition.method == "GET":
            body, content_type = b"", "text/plain"
        else:
            body, content_type = orjson.dumps(fields), _JSON
        checks = tuple(make_check(table) for table in definition.check_tables(effective.expect))
        inputs = {name: asset.metadata for name, asset in files.items()}
        return Request(
            path=_path_with_query(definition, fields),
            content_type=content_type,
            body=body,
            parameters={**fields, **effective.files},
            expectation=Expectation(checks, fields, inputs, is_streamed=bool(definition.stream)),
            first_token=_FIRST_TOKEN if definition.stream else None,
            method=definition.method,
            takes_any_answer=definition.runner and not checks,
            update=self._choose_update(definition, model),
        )

    def _choose_update(self, definition: PipelineDefinition, model: str) -> Mapping[str, Any]:
        if definition.video is None:
            return {}
        chosen: Mapping[str, Any] = choose(definition.video_for(model).update, self.seed, f"{definition.slug} update")
        return chosen


def _path_with_query(definition: PipelineDefinition, fields: Mapping[str, Any]) -> str:
    if definition.method != "GET" or not fields:
        return definition.uri
    return f"{definition.uri}?{urlencode({name: form_text(value) for name, value in fields.items()}, quote_via=quote)}"


def encode_multipart(fields: Mapping[str, Any], files: Mapping[str, tuple[str, bytes]]) -> tuple[bytes, str]:
    """Return the body of a form with fields as text and files with their names, and its content type."""
    parts = [_encode_part(f'name="{_escape(name)}"', form_text(value).encode()) for name, value in fields.items()]
    parts += [
        _encode_part(f'name="{_escape(name)}"; filename="{_escape(filename)}"', content, "application/octet-stream")
        for name, (filename, content) in files.items()
    ]
    # By hash of the content: equal content gives equal bytes, and no content can contain the boundary.
    boundary = hashlib.sha256(b"".join(parts)).hexdigest()[:32].encode()
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts) + b"--%b--\r\n" % boundary
    return body, f"multipart/form-data; boundary={boundary.decode()}"


def form_text(value: Any) -> str:
    """Return the text of a form field: true and false, whole numbers in base 10, anything nested as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _encode_part(disposition: str, content: bytes, kind: str = "") -> bytes:
    head = f"Content-Disposition: form-data; {disposition}\r\n"
    head += f"Content-Type: {kind}\r\n" if kind else ""
    return head.encode() + b"\r\n" + content


def _escape(text: str) -> str:
    return text.translate(_FORM_ESCAPES)
