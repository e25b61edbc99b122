"""The catalogue: every pipeline that can be tested, built in and from config.toml, checked as a whole."""

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
from jobtester.settings.schema import deep_merge, did_you_mean

Catalogue: TypeAlias = Mapping[str, PipelineDefinition]

_NOT_WRITTEN = ("slug", "inputs")
_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def builtin_tables() -> dict[str, dict[str, Any]]:
    """Give the tables of the built-in pipelines."""
    return tomllib.loads(files("jobtester.pipelines").joinpath("builtin.toml").read_text("utf-8"))


def load_catalogue(overrides: Mapping[str, Mapping[str, Any]], assets: Assets) -> Catalogue:
    """Lay the [pipelines.*] tables of config.toml over the built-in ones and check everything, test inputs included.

    Raises one ConfigError with every problem, each with its key path.
    """
    tables = builtin_tables()
    for slug, table in overrides.items():
        tables[slug] = deep_merge(tables.get(slug), table)
    found: dict[str, PipelineDefinition] = {}
    problems: list[str] = []
    for slug, table in tables.items():
        definition, wrong = _define(slug, table, assets)
        problems += [f"pipelines.{_key(slug)}{line}" for line in wrong]
        if definition is not None:
            found[slug] = definition
    if problems:
        raise ConfigError.from_problems("the pipelines are not usable", problems)
    return MappingProxyType(found)


def streaming_pipelines(catalogue: Catalogue) -> list[str]:
    """Give the pipelines that write, and may stream it: of those, tokens are measured."""
    return [one.slug for one in catalogue.values() if one.stream is not None]


def _define(slug: str, table: object, assets: Assets) -> tuple[PipelineDefinition | None, list[str]]:
    """Make a definition, or say what is wrong with its table; each line begins where the table's name ends."""
    if not isinstance(table, Mapping):
        return None, [": has to be a table"]
    problems = [f".{key}: no such key" for key in _NOT_WRITTEN if key in table]
    if not table.get("byoc") and not _SLUG.fullmatch(slug):
        problems.append(': the name is part of an address: small letters, digits and "-"; or set byoc = true')
    given = {key: value for key, value in table.items() if key not in _NOT_WRITTEN}
    try:
        definition = PipelineDefinition.model_validate({**given, "slug": slug})
    except ValidationError as error:
        return None, problems + [_line(dict(item)) for item in error.errors()]
    problems += _contents(definition)
    if problems or not definition.enabled:
        return definition, problems
    inputs, problems = _inputs(definition, assets)
    definition = definition.model_copy(update={"inputs": inputs(definition.files)})
    return definition, problems or list(_unknowns(definition, inputs))


def _contents(definition: PipelineDefinition) -> list[str]:
    """Say what is wrong inside parameters, files and checks, which are free tables."""
    problems = [
        f".checks[{i}]{line}" for i, table in enumerate(definition.checks) for line in parameter_problems(table)
    ]
    if problems:
        return problems
    for where, override in _layers(definition):
        problems += _parameters(where, definition, override)
        if override.files and not definition.is_multipart:
            problems.append(f'{where}.files: only content_type = "multipart/form-data" carries files')
        names = {table["check"] for table in definition.checks}
        for name, expected in override.expect.items():
            if name not in names:
                problems.append(f"{where}.expect.{name}: the pipeline has no check of this name")
                continue
            table = {**next(each for each in definition.checks if each["check"] == name), **expected}
            problems += [f"{where}.expect.{name}{line}" for line in parameter_problems(table)]
    return problems


def _parameters(where: str, definition: PipelineDefinition, override: Override) -> Iterator[str]:
    for key, value in override.parameters.items():
        path = f"{where}.parameters.{_key(key)}"
        if key == definition.model_field:
            yield f"{path}: is filled in for each job; model_field names it"
        elif key == "stream":
            yield f"{path}: write it beside parameters: stream = true or false"
        elif key in definition.files:
            yield f"{path}: is a file already; see files"
        elif has_empty_list(value):
            yield f"{path}: the list is empty, so there is nothing to choose"
        elif not _plain(value):
            yield f"{path}: dates, times, nan, inf and integers beyond 64 bits cannot be sent; write a text"


def _inputs(definition: PipelineDefinition, assets: Assets) -> tuple[Any, list[str]]:
    """Read every file the pipeline may send; give a function from files to their truths, and what is wrong."""
    known: dict[str, AssetMetadata] = {}
    problems = []
    for where, override in _layers(definition):
        for field, name in override.files.items():
            try:
                known[name] = assets.get(name).metadata
            except AssetError as error:
                problems.append(f"{where}.files.{_key(field)}: {error}")

    def truths(sent: Mapping[str, str]) -> dict[str, AssetMetadata]:
        return {field: known[name] for field, name in sent.items() if name in known}

    return truths, problems


def _unknowns(definition: PipelineDefinition, inputs: Any) -> Iterator[str]:
    """Say which checks would have to know something of the request that nobody tells them."""
    said = set()
    for variant in definition.variants or (None,):
        for pattern in ("", *definition.per_model):
            whole = definition.for_model(pattern, variant)
            asked = choose(whole.parameters, 0, definition.slug)
            tables = definition.check_tables(whole.expect)
            expectation = Expectation((), asked, inputs(whole.files))
            for index, table in enumerate(tables):
                need = missing_inputs(make_check(table), expectation)
                line = f".checks[{index}]: {table['check']} {need}"
                if need and line not in said:
                    said.add(line)
                    yield line


def _layers(definition: PipelineDefinition) -> Iterator[tuple[str, Override]]:
    """Give every place where parameters, files and expectations may stand, with its key path."""
    yield "", Override(parameters=definition.parameters, files=definition.files)
    for pattern, override in definition.per_model.items():
        yield f'.per_model."{pattern}"', override
    for index, variant in enumerate(definition.variants):
        yield f".variants[{index}]", variant


def _plain(value: Any) -> bool:
    """Tell whether a value can be written as JSON."""
    if isinstance(value, Mapping):
        return all(map(_plain, value.values()))
    if isinstance(value, list):
        return all(map(_plain, value))
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def _key(name: object) -> str:
    text = str(name)
    return text if re.fullmatch(r"[\w-]+", text) else f'"{text}"'


def _line(item: Mapping[str, Any]) -> str:
    """Put one of pydantic's findings into plain words, with the key path first."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = (
            Override.model_fields
            if len(item["loc"]) > 1
            else PipelineDefinition.model_fields.keys() - set(_NOT_WRITTEN)
        )
        return f"{path}: no such key{did_you_mean(str(item['loc'][-1]), known)}"
    if item["type"] == "missing":
        return f"{path}: is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    given = item.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{path}: {message}{shown}"
