"""Generate the tables of the documentation from the program: settings, reasons, pipelines, checks, modules.

`python -m tools.documentation_tables` (`make docs`) writes them into the pages, between `<!-- table: name -->` and
`<!-- end -->`; a test finds out when a page and the program have come apart.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobtester.domain.plan import SKIP_REASONS
from jobtester.domain.reasons import Outcome, all_reasons
from jobtester.pipelines.definition import Override, PipelineDefinition
from jobtester.pipelines.video_rules import VideoRules
from jobtester.settings.live_sections import LiveRunnerPaymentSettings
from jobtester.settings.model import Settings
from jobtester.settings.sections import StaticCapability, StaticOrchestrator
from tools.documentation_examples import example_requests, example_stats
from tools.documentation_pipelines import checks, pipeline_inputs, pipelines
from tools.documentation_values import default_text, join_lines, table, type_name, written

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
        kind, default = type_name(info.annotation, info), default_text(info)
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


def _first(model: type[BaseModel]) -> str:
    return join_lines((model.__doc__ or "").split("\n\n")[0])


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?" else text + "."


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
