"""Generate the tables of the documentation from the program: settings, reasons, pipelines, checks, modules.

`python -m tools.documentation_tables` (`make docs`) writes them into the pages, between `<!-- table: name -->` and
`<!-- end -->`; a test finds out when a page and the program have come apart.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import orjson
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from jobtester.checks.registry import CHECK_TYPES
from jobtester.domain.plan import SKIP_REASONS
from jobtester.domain.reasons import Outcome, all_reasons
from jobtester.domain.units import format_duration
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import load_catalogue
from jobtester.pipelines.definition import Override, PipelineDefinition
from jobtester.pipelines.video_rules import VideoRules
from jobtester.settings import types
from jobtester.settings.live_sections import LiveRunnerPaymentSettings
from jobtester.settings.model import Settings
from jobtester.settings.sections import StaticCapability, StaticOrchestrator
from tools.documentation_examples import example_requests, example_stats, join_alike

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs"

_BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NOT_WRITTEN = ("slug", "inputs")

# Values as they are written in config.toml, for keys whose default does not show what may stand there.
EXAMPLES: Mapping[str, object] = {
    "region": "FRA",
    "assets": "inputs",
    "schedule.interval": "30m",
    "schedule.cron": "0 */2 * * *",
    "schedule.timezone": "Europe/Berlin",
    "schedule.offset": "10m",
    "schedule.run_at_start": False,
    "server.host": "127.0.0.1",
    "server.trusted_proxy": ["172.16.0.0/12"],
    "server.proxy_user_header": "X-Forwarded-User",
    "gateways.name": "frankfurt",
    "gateways.url": "http://gateway:8935",
    "gateways.cli_url": "http://gateway:7935",
    "gateways.targeting": "query",
    "gateways.event_source": "gateway-fra",
    "live_runner.enabled": True,
    "live_runner.networks": ["10.0.0.0/8"],
    "live_runner.probe": "reserve",
    "live_runner.payment.signer_url": "http://127.0.0.1:9935",
    "live_runner.payment.max_price_per_job": "0.0001 ETH",
    "leaderboard.url": "https://leaderboard.example",
    "discovery.source": "static",
    "discovery.include": ["0xd00354656922168815fcd1e51cbddb9e359e3c7f"],
    "discovery.exclude": ["https://orchestrator.example:8935"],
    "budget.per_tick": "0.001 ETH",
    "budget.per_day": "0.02 ETH",
    "budget.max_price_per_job": "50000000000000 wei",
    "discovery.orchestrators.address": "0xd00354656922168815fcd1e51cbddb9e359e3c7f",
    "discovery.orchestrators.service_uri": "https://orchestrator.example:8935",
    "discovery.orchestrators.capabilities.pipeline": "text-to-image",
    "discovery.orchestrators.capabilities.model": "ByteDance/SDXL-Lightning",
    "delivery.miss_after": "5m",
    "pause.from": "2026-12-24T18:00:00Z",
    "pause.until": "2026-12-26T09:00:00Z",
    "pause.cron": "0 2 * * 0",
    "pause.duration": "2h",
    "pause.timezone": "Europe/Berlin",
    "pause.orchestrators": ["0xd00354656922168815fcd1e51cbddb9e359e3c7f"],
    "pause.reason": "moved to another data center",
    "server.public_url": "https://tester.example",
    "notify.when": "change",
    "notify.format": "slack",
    "notify.template": "$region: $failing_count failing",
    "notify.template_type": "json",
    "notify.url": "https://hooks.example/jobtester",
    "pipelines.name": "My own",
    "pipelines.enabled": False,
    "pipelines.byoc": True,
    "pipelines.runner": True,
    "pipelines.apps": ["*/my-app"],
    "pipelines.method": "GET",
    "pipelines.models": ["ByteDance/SDXL-Lightning"],
    "pipelines.uri": "/my-own",
    "pipelines.content_type": "multipart/form-data",
    "pipelines.model_field": "model",
    "pipelines.stream": False,
    "pipelines.parameters": {"prompt": ["a red fox", "a lighthouse"], "width": 512},
    "pipelines.files": {"image": "image.png"},
    "pipelines.checks": [{"check": "json", "path": "images.0.url", "is": "image"}],
    "pipelines.units": ["width", "height"],
    "pipelines.per_model": {"*turbo*": {"parameters": {"num_inference_steps": 4}}},
    "pipelines.variants": [{"parameters": {"prompt": "Say 42"}, "expect": {"json": {"equals": "42"}}}],
    "pipelines.video": {"width": 384, "height": 704, "min_fps": 12},
    "override.video": {"min_fps": 12},
    "video.update": {"prompt": ["a castle", "a harbor"]},
    "override.parameters": {"num_inference_steps": 4},
    "override.files": {"image": "small.png"},
    "override.expect": {"image": {"size": "any"}},
}


def settings_tables() -> str:
    """Return every key of config.toml, a table of the page for each table of the file."""
    lone = {name: info for name, info in Settings.model_fields.items() if not _inner(info) and name != "pipelines"}
    parts = ["### At the top\n\n" + _keys("", lone)]
    for name, info in Settings.model_fields.items():
        inner = _inner(info)
        if inner is None:
            continue
        head = f"[[{name}]]" if _is_list(info) else f"[{name}]"
        fields = {key: field for key, field in inner.model_fields.items() if _inner(field) is None or _is_list(field)}
        parts.append(f"### `{head}`\n\n{_first(inner)}\n\n" + _keys(f"{name}.", fields))
    for head, prefix, model in (
        ("[live_runner.payment]", "live_runner.payment.", LiveRunnerPaymentSettings),
        ("[[discovery.orchestrators]]", "discovery.orchestrators.", StaticOrchestrator),
        ("[[discovery.orchestrators.capabilities]]", "discovery.orchestrators.capabilities.", StaticCapability),
    ):
        parts.append(f"### `{head}`\n\n{_first(model)}\n\n" + _keys(prefix, model.model_fields))
    return "\n".join(parts)


def pipeline_keys() -> str:
    """Return every key of a [pipelines.*] table."""
    fields = {name: info for name, info in PipelineDefinition.model_fields.items() if name not in _NOT_WRITTEN}
    return _keys("pipelines.", fields)


def override_keys() -> str:
    """Return every key of what differs per model or variant."""
    return _keys("override.", Override.model_fields)


def video_keys() -> str:
    """Return every key of what live video sends and has to reach."""
    return _keys("video.", VideoRules.model_fields)


def _keys(prefix: str, fields: Mapping[str, FieldInfo]) -> str:
    rows = []
    for name, info in fields.items():
        kind, default = _type(info.annotation, info), _default(info)
        rows.append(
            (f"`{name}`", kind, default, _example(prefix + name, kind, default), _sentence(info.description or ""))
        )
    return table(("key", "type", "default", "example", "what it is"), rows)


def _example(path: str, kind: str, default: str) -> str:
    """Return what may be written, the default itself where it shows that; a secret is shown as its variable."""
    if path in EXAMPLES:
        return f"`{written(EXAMPLES[path])}`"
    if kind == "secret":
        section, _, key = path.partition(".")
        where = f"{section}__0__{key}" if section == "gateways" else f"{section}__{key}"
        return f"`JOBTESTER_{where.upper()}`"
    return default if default.startswith("`") else "see below"


def leaves() -> Iterator[tuple[str, FieldInfo]]:
    """Return every key path of the settings that holds a value, with its field."""
    for name, info in Settings.model_fields.items():
        inner = _inner(info)
        if inner is None:
            yield name, info
        for key, field in (inner.model_fields if inner else {}).items():
            yield f"{name}.{key}", field


def _inner(info: FieldInfo) -> type[BaseModel] | None:
    """Return the table behind a field, None for a plain value."""
    for part in (info.annotation, *get_args(info.annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _is_list(info: FieldInfo) -> bool:
    return get_origin(info.annotation) is list


_KINDS: Mapping[Any, str] = {bool: "true or false", int: "integer", float: "number", str: "text", Any: "anything"}


def _type(annotation: Any, info: FieldInfo | None = None) -> str:
    """Return in plain words what may be written."""
    alias = _alias(info) if info is not None else ""
    if alias:
        return alias
    named = next((name for name, known in _ALIASES.items() if annotation == known), "")
    if named:
        return _NAMES[named]
    origin, inner = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if annotation is SecretStr:
        return "secret"
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in inner))
    if origin is list or origin is tuple:
        inside = _type(inner[0])
        return "list of tables" if inside == "table" else f"list of {_plural(inside)}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    if hasattr(annotation, "__metadata__"):
        return _type(annotation.__origin__)
    return _KINDS.get(annotation, str(annotation))


_ALIASES = {
    name: getattr(types, name)
    for name in (
        "Duration",
        "PositiveDuration",
        "Size",
        "Wei",
        "WebAddress",
        "SecretAddress",
        "Cron",
        "Timezone",
        "Instant",
    )
}
_NAMES = {
    "Instant": "date and time",
    "Duration": "duration",
    "PositiveDuration": "duration",
    "Size": "size",
    "Wei": "amount",
    "WebAddress": "address",
    "SecretAddress": "secret address",
    "Cron": "cron expression",
    "Timezone": "timezone",
}
_READERS: Mapping[Any, str] = {
    alias.__metadata__[0]: _NAMES[name] for name, alias in _ALIASES.items() if name != "PositiveDuration"
}


def _alias(info: FieldInfo) -> str:
    """Return the name of the kind of value, where one of `values` is the field's own type."""
    return next((_READERS[annotation] for annotation in info.metadata if annotation in _READERS), "")


def _plural(word: str) -> str:
    return {"text": "texts", "table": "tables", "integer": "integers"}.get(word, word)


def _default(info: FieldInfo) -> str:
    """Return the default as it would be written, a dash for none."""
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None or value == "":
        return "–"
    if isinstance(value, float) and _type(info.annotation, info) != "number":
        value = format_duration(value)
    return f"`{written(value)}`"


def written(value: object) -> str:
    """Write a value as TOML does, in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_toml_key(str(key))} = {written(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(written(item) for item in value)}]"
    return orjson.dumps(value).decode()


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key) else written(key)


def reasons() -> str:
    """Return the table of reason codes, the outcomes in order."""
    parts = []
    for outcome in Outcome:
        rows = [
            (f"`{row.code}`", row.fault.value, row.meaning, row.advice or "–")
            for row in all_reasons()
            if row.outcome is outcome
        ]
        parts.append(f"### `{outcome.value}`\n\n" + table(("code", "fault", "what happened", "what to do"), rows))
    return "\n".join(parts)


def skips() -> str:
    """Return the reasons for which a capability is not tested."""
    return table(("reason", "why"), [(f"`{code}`", _sentence(text)) for code, text in SKIP_REASONS.items()])


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
                ", ".join(f"`{check['check']}`" for check in definition.checks) or "any answer",
            )
        )
    return table(("slug", "name at the Leaderboard", "path", "request", "assets", "limit warm / cold", "checks"), rows)


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


def modules() -> str:
    """Return every module of each room, with the first line of its docstring."""
    package = ROOT / "jobtester"
    parts = []
    for folder in [package, *sorted(path.parent for path in package.rglob("__init__.py") if path.parent != package)]:
        rows = [
            (f"`{path.stem}`", _first_line(path))
            for path in sorted(folder.glob("*.py"))
            if path.stem not in ("__init__", "__main__")
        ]
        if rows:
            parts.append(f"### `{folder.relative_to(ROOT)}`\n\n" + table(("module", "what it does"), rows))
    return "\n".join(parts)


def _first_line(path: Path) -> str:
    lines = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()
    return lines[0] if lines else ""


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
        about = _flowing((module.__doc__ or "").split(": ", 1)[1])
        rows = [
            (
                f"`{each.name.rstrip('_')}`",
                _worth(each.default),
            )
            for each in fields(kind.params)
        ]
        parts.append(
            f"### `{name}`\n\n{about[:1].upper()}{about[1:]}\n\n{_flowing(kind.params.__doc__ or '')}\n\n"
            + table(("parameter", "default"), rows)
        )
    return "\n".join(parts)


def _worth(default: object) -> str:
    if default is MISSING:
        return "required"
    return "–" if default in (None, "", ()) else f"`{written(default)}`"


def _builtin() -> Mapping[str, PipelineDefinition]:
    return load_catalogue({}, Assets())


def _flowing(text: str) -> str:
    return " ".join(text.split())


def _first(model: type[BaseModel]) -> str:
    return _flowing((model.__doc__ or "").split("\n\n")[0])


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?" else text + "."


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    parts = text.replace("|", "\\|").replace("\n", " ").split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts) or " "


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_tables,
    "pipeline-keys": pipeline_keys,
    "override-keys": override_keys,
    "reasons": reasons,
    "skips": skips,
    "pipelines": pipelines,
    "pipeline-inputs": pipeline_inputs,
    "video-keys": video_keys,
    "example-requests": example_requests,
    "example-stats": example_stats,
    "checks": checks,
    "modules": modules,
}


def filled(text: str) -> str:
    """Return a page with its tables as the program has them now. Raises KeyError for a table that nobody makes."""
    return _BLOCK.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}{match[3]}", text)


def main() -> None:
    """Write every table into the pages."""
    for page in sorted(PAGES.glob("*.md")):
        before = page.read_text("utf-8")
        after = filled(before)
        if after != before:
            page.write_text(after, "utf-8")


if __name__ == "__main__":
    main()
