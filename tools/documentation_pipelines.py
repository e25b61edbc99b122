"""Tables of the built-in pipelines and of the checks: where a job goes, what it sends, what its answer has to pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields

from jobtester.checks.registry import CHECK_TYPES
from jobtester.domain.units import format_duration
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import load_catalogue
from jobtester.pipelines.definition import Override, PipelineDefinition
from tools.documentation_examples import join_alike
from tools.documentation_values import join_lines, table, written


def pipelines() -> str:
    """Return the built-in pipelines: where they go, what they send, within which time."""
    rows = []
    for slug, definition in _builtin().items():
        rows.append(
            (
                f"`{slug}`",
                definition.name,
                f"`{definition.uri}`",
                _request_kind(definition),
                ", ".join(f"`{field}` = `{file}`" for field, file in definition.files.items()) or "–",
                f"{format_duration(definition.timeout_s)} / {format_duration(definition.cold_timeout_s)}",
                _bar(definition),
            )
        )
    return table(("slug", "name at the Leaderboard", "path", "request", "assets", "limit warm / cold", "checks"), rows)


def _bar(definition: PipelineDefinition) -> str:
    """Return what an answer has to pass: the checks, and for a video stream the limits of its output."""
    names = [f"`{check['check']}`" for check in definition.checks]
    if (video := definition.video) is not None:
        names += [f"`video.{key}` = {getattr(video, key):g}" for key in ("min_fps", "max_gap")]
        names += [f"`video.max_reaction` = {video.max_reaction:g}"] if video.update else []
    return ", ".join(names) or "any answer"


def _request_kind(definition: PipelineDefinition) -> str:
    form = "form data" if definition.is_multipart else "JSON" if definition.method == "POST" else definition.method
    return f"live runner, {form}" if definition.runner else f"BYOC, {form}" if definition.byoc else form


def pipeline_inputs() -> str:
    """Return what each built-in pipeline sends and expects, in full."""
    parts = []
    for slug, definition in _builtin().items():
        has_model_field = not definition.runner and not definition.video
        sent = [(f"`{definition.model_field}`", "the model under test")] if has_model_field else []
        if definition.stream is not None:
            sent.append(("`stream`", f"`{written(definition.stream)}`"))
        sent += [(f"`{key}`", _value(value)) for key, value in definition.parameters.items()]
        sent += [(f"`{field}`", f"the file `{file}`") for field, file in definition.files.items()]
        if definition.video is not None:
            sent += [(f"`{key}`, changed to", _value(value)) for key, value in definition.video.update.items()]
        for key in dict.fromkeys(key for variant in definition.variants for key in variant.parameters):
            sent.append((f"`{key}`", f"one of {len(definition.variants)} variants, {_variant(definition, key)}"))
        lines = [f"### `{slug}`\n"]
        if definition.runner:
            lines.append(f"For apps that match {', '.join(f'`{pattern}`' for pattern in definition.apps)}.\n")
        if sent:
            lines.append(table(("field", "value"), sent))
        overrides = [(f"`{pattern}`", _overrides(model)) for pattern, model in definition.per_model.items()]
        for patterns, changes in join_alike(overrides):
            lines.append(f"Models that match {', '.join(patterns)}: {changes}.\n")
        for check in definition.checks:
            told = [f"`{key}` = `{written(value)}`" for key, value in check.items() if key != "check"]
            lines.append(f"Check `{check['check']}`" + (f" with {', '.join(told)}" if told else "") + ".\n")
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _overrides(other: Override) -> str:
    """Return what differs for some models, in one line."""
    parts = [f"`{key}` = `{written(value)}`" for key, value in other.parameters.items()]
    parts += [f"`{field}` = the file `{file}`" for field, file in other.files.items()]
    parts += [f"`video.{key}` = `{written(value)}`" for key, value in other.video.items()]
    parts += [
        f"check `{name}` with `{key}` = `{written(value)}`"
        for name, expected in other.expect.items()
        for key, value in expected.items()
    ]
    return ", ".join(parts)


def _value(value: object) -> str:
    if isinstance(value, list) and not isinstance(value[0], dict):
        return f"one of {len(value)}, such as `{written(value[0])}`"
    return f"`{written(value)}`"


def _variant(definition: PipelineDefinition, key: str) -> str:
    return f"such as `{written(definition.variants[0].parameters[key])}`"


def checks() -> str:
    """Return every check with its parameters, from what its module says of them."""
    parts = []
    for name, kind in CHECK_TYPES.items():
        module = __import__(kind.params.__module__, fromlist=["__doc__"])
        about = join_lines((module.__doc__ or "").split(": ", 1)[1])
        rows = [
            (
                f"`{each.name.rstrip('_')}`",
                _worth(each.default),
            )
            for each in fields(kind.params)
        ]
        parts.append(
            f"### `{name}`\n\n{about[:1].upper()}{about[1:]}\n\n{join_lines(kind.params.__doc__ or '')}\n\n"
            + table(("parameter", "default"), rows)
        )
    return "\n".join(parts)


def _worth(default: object) -> str:
    if default is MISSING:
        return "required"
    return "–" if default in (None, "", ()) else f"`{written(default)}`"


def _builtin() -> Mapping[str, PipelineDefinition]:
    return load_catalogue({}, Assets())
