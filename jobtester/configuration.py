"""The configuration: config.toml, its pipelines and its test inputs, with all problems in one message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel

from jobtester.errors import ConfigError
from jobtester.logs import configure_logs
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import Catalogue, load_catalogue
from jobtester.settings.model import Settings, examine
from jobtester.settings.sources import read_file, read_outside

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that was checked before it came into force; `overrides` are what the command line said."""

    settings: Settings
    catalogue: Catalogue
    assets: Assets
    origin: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    simulated: bool = False
    warnings: tuple[str, ...] = ()


def load_configuration(path: str, overrides: Mapping[str, Any] | None = None) -> Configuration:
    """Read and check everything that config.toml says. Raises ConfigError that names every problem."""
    where = Path(path)
    try:
        content = read_file(where)
    except ConfigError as error:
        if not (beside := read_outside(Settings).problems):
            raise
        raise ConfigError.of(f"{where} is not usable", [str(error), *beside]) from error
    return check_configuration(content, origin=str(where), overrides=overrides)


def check_configuration(
    content: Mapping[str, Any],
    *,
    origin: str,
    overrides: Mapping[str, Any] | None = None,
    simulated: bool = False,
) -> Configuration:
    """Check a configuration given as tables. Raises ConfigError that names every problem."""
    examined = examine(content, overrides)
    problems = list(examined.problems)
    folder, pipelines = examined.tables.get("assets"), examined.tables.get("pipelines", {})
    assets = Assets(Path(folder) if folder and isinstance(folder, str) else None)
    found: Catalogue = {}
    try:
        found = load_catalogue(pipelines if isinstance(pipelines, Mapping) else {}, assets)
    except ConfigError as error:
        problems += error.problems or [str(error)]
    if problems or examined.settings is None:
        raise ConfigError.of(f"{origin} is not usable", problems)
    return Configuration(
        examined.settings, found, assets, origin, dict(overrides or {}), simulated, warnings=examined.warnings
    )


def with_logs(configuration: Configuration, *, quiet: bool = False, again: bool = False) -> Configuration:
    """Set the log up as configured, and log warnings unless it is set up again.

    `quiet` leaves out what progress on a terminal shows anyway.
    """
    wanted = configuration.settings.logs
    level = "warning" if quiet and wanted.level in ("debug", "info") else wanted.level
    configure_logs(level, wanted.format)
    if not again:
        for warning in configuration.warnings:
            log.warning("config_warning", problem=warning)
    return configuration


def tables(checked: Settings) -> dict[str, Any]:
    """Give settings as tables: absent keys for None, and secrets as they are, which print as a mask."""
    found = _plain(checked)
    assert isinstance(found, dict)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        found = {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        return {name: inner for name, inner in found.items() if inner is not None}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
