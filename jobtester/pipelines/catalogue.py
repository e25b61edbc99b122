"""The catalogue: load every pipeline that can be tested, built in or from config.toml, and check it as a whole."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any, TypeAlias

from pydantic import ValidationError

from jobtester.checks.base import AssetMetadata, Expectation
from jobtester.checks.registry import make_check, missing_inputs, parameter_problems
from jobtester.errors import AssetError, ConfigError
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.definition import Override, PipelineDefinition
from jobtester.pipelines.parameter_choices import choose, has_empty_list
from jobtester.pipelines.video_rules import VideoRules
from jobtester.settings.schema import deep_merge, did_you_mean

Catalogue: TypeAlias = Mapping[str, PipelineDefinition]

_INTERNAL_FIELDS = ("slug", "inputs")  # of a definition, but not keys of its table
_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def builtin_tables() -> dict[str, dict[str, Any]]:
    """Return the tables of the built-in pipelines by slug."""
    return tomllib.loads(files("jobtester.pipelines").joinpath("builtin.toml").read_text("utf-8"))


def load_catalogue(overrides: Mapping[str, Mapping[str, Any]], assets: Assets) -> Catalogue:
    """Lay the [pipelines.*] tables of config.toml over the built-in ones and check everything, test inputs included.

    Raises one ConfigError with every problem, each with its key path.
    """
    tables = builtin_tables()
    for slug, table in overrides.items():
        tables[slug] = deep_merge(tables.get(slug), table)
    catalogue: dict[str, PipelineDefinition] = {}
    problems: list[str] = []
    for slug, table in tables.items():
        definition, table_problems = _define(slug, table, assets)
        problems += [f"pipelines.{_format_key(slug)}{line}" for line in table_problems]
        if definition is not None:
            catalogue[slug] = definition
    if problems:
        raise ConfigError.from_problems("the pipelines are not usable", problems)
    return MappingProxyType(catalogue)


def streaming_pipelines(catalogue: Catalogue) -> list[str]:
    """Return the slugs of pipelines that write text and may stream it; of those, tokens are measured."""
    return [definition.slug for definition in catalogue.values() if definition.stream is not None]


def _define(slug: str, table: object, assets: Assets) -> tuple[PipelineDefinition | None, list[str]]:
    """Return the definition of a table, and its problems; each line continues the table's own key path."""
    if not isinstance(table, Mapping):
        return None, [": has to be a table"]
    problems = [f".{key}: no such key" for key in _INTERNAL_FIELDS if key in table]
    if not (table.get("byoc") or table.get("runner")) and not _SLUG.fullmatch(slug):
        problems.append(': the name is part of an address: small letters, digits and "-"; or set byoc = true')
    keys = {key: value for key, value in table.items() if key not in _INTERNAL_FIELDS}
    try:
        definition = PipelineDefinition.model_validate({**keys, "slug": slug})
    except ValidationError as error:
        return None, problems + [_format_error(dict(item)) for item in error.errors()]
    problems += _find_table_problems(definition)
    # A disabled pipeline may name test inputs that are not there: nothing is sent for it.
    if problems or not definition.enabled:
        return definition, problems
    metadata, problems = _read_inputs(definition, assets)
    inputs = {field: metadata[name] for field, name in definition.files.items() if name in metadata}
    definition = definition.model_copy(update={"inputs": inputs})
    return definition, problems or list(dict.fromkeys(_find_unmet_needs(definition, metadata)))


def _find_table_problems(definition: PipelineDefinition) -> list[str]:
    """Return the problems of parameters, files and checks, which are free tables to pydantic."""
    problems = [*_find_runner_problems(definition), *_find_video_problems(definition)]
    problems += [
        f".checks[{index}]{line}" for index, table in enumerate(definition.checks) for line in parameter_problems(table)
    ]
    if problems:
        return problems
    checks = {table["check"]: table for table in reversed(definition.checks)}  # the first of a name counts
    for path, override in _overrides(definition):
        problems += _find_parameter_problems(path, definition, override)
        if override.files and not definition.is_multipart:
            problems.append(f'{path}.files: only content_type = "multipart/form-data" carries files')
        for name, parameters in override.expect.items():
            if name not in checks:
                problems.append(f"{path}.expect.{name}: the pipeline has no check of this name")
            else:
                lines = parameter_problems({**checks[name], **parameters})
                problems += [f"{path}.expect.{name}{line}" for line in lines]
    return problems


def _find_runner_problems(definition: PipelineDefinition) -> Iterator[str]:
    if definition.runner and definition.byoc:
        yield ": is byoc and runner; a job goes either through a gateway or to the orchestrator itself"
    if definition.runner and definition.method == "GET" and (definition.is_multipart or definition.files):
        yield ".method: GET carries no files"
    if not definition.runner and definition.method != "POST":
        yield ".method: only live runners take GET; set runner = true"
    if not definition.runner and definition.apps:
        yield ".apps: only live runners serve apps; set runner = true"


def _find_video_problems(definition: PipelineDefinition) -> Iterator[str]:
    if definition.runner and definition.video is not None and definition.checks:
        yield ".checks: a video app's answer names its channels; the picture is judged by the keys of video"
    is_changed = any("update" in override.video for override in definition.per_model.values())
    if definition.runner and definition.video is not None and (definition.video.update or is_changed):
        yield ".video.update: apps of live runners have no call that changes parameters"
    for path, override in _overrides(definition):
        if definition.video is None:
            if override.video:
                yield f"{path}.video: the pipeline is no live video"
            continue
        try:
            VideoRules.model_validate(deep_merge(definition.video.model_dump(), override.video))
        except ValidationError as error:
            yield from (f"{path}.video{_format_error(dict(item))}" for item in error.errors())


def _find_parameter_problems(parent: str, definition: PipelineDefinition, override: Override) -> Iterator[str]:
    for key, value in override.parameters.items():
        path = f"{parent}.parameters.{_format_key(key)}"
        if key == definition.model_field and not definition.runner:
            yield f"{path}: is filled in for each job; model_field names it"
        elif key == "stream":
            yield f"{path}: write it beside parameters: stream = true or false"
        elif key in definition.files:
            yield f"{path}: is a file already; see files"
        elif has_empty_list(value):
            yield f"{path}: the list is empty, so there is nothing to choose"
        elif not _fits_json(value):
            yield f"{path}: dates, times, nan, inf and integers beyond 64 bits cannot be sent; write a text"


def _read_inputs(definition: PipelineDefinition, assets: Assets) -> tuple[dict[str, AssetMetadata], list[str]]:
    """Return the metadata of every file that the pipeline may send, by name, and the problems of the others."""
    metadata: dict[str, AssetMetadata] = {}
    problems = []
    for path, override in _overrides(definition):
        for field, name in override.files.items():
            try:
                metadata[name] = assets.get(name).metadata
            except AssetError as error:
                problems.append(f"{path}.files.{_format_key(field)}: {error}")
    return metadata, problems


def _find_unmet_needs(definition: PipelineDefinition, metadata: Mapping[str, AssetMetadata]) -> Iterator[str]:
    """Yield a line for each check that needs to know more of a request than its parameters and files say."""
    # Every combination that a tick may choose is tried: a check that can only be made in some would pass or fail
    # orchestrators by the luck of the tick.
    for variant in definition.variants or (None,):
        for pattern in ("", *definition.per_model):
            effective = definition.for_model(pattern, variant)
            parameters = choose(effective.parameters, 0, definition.slug)
            inputs = {field: metadata[name] for field, name in effective.files.items() if name in metadata}
            expectation = Expectation((), parameters, inputs)
            for index, table in enumerate(definition.check_tables(effective.expect)):
                if need := missing_inputs(make_check(table), expectation):
                    yield f".checks[{index}]: {table['check']} {need}"


def _overrides(definition: PipelineDefinition) -> Iterator[tuple[str, Override]]:
    """Yield every place where parameters, files and expectations may stand, with its key path."""
    yield "", Override(parameters=definition.parameters, files=definition.files)
    for pattern, override in definition.per_model.items():
        yield f'.per_model."{pattern}"', override
    for index, variant in enumerate(definition.variants):
        yield f".variants[{index}]", variant


def _fits_json(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_fits_json, value.values()))
    if isinstance(value, list):
        return all(map(_fits_json, value))
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def _format_key(name: object) -> str:
    text = str(name)
    return text if re.fullmatch(r"[\w-]+", text) else f'"{text}"'


def _format_error(error: Mapping[str, Any]) -> str:
    """Return a line for one of pydantic's errors, with the key path first."""
    location = error["loc"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{_format_key(part)}" for part in location)
    if error["type"] == "extra_forbidden":
        model = VideoRules if location[0] == "video" else Override
        is_nested = len(location) > 1
        keys = model.model_fields if is_nested else PipelineDefinition.model_fields.keys() - set(_INTERNAL_FIELDS)
        return f"{path}: no such key{did_you_mean(str(location[-1]), keys)}"
    if error["type"] == "missing":
        return f"{path}: is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    shown = f" (given: {value!r})" if isinstance(value, str | int | float | bool) else ""
    return f"{path}: {message}{shown}"
