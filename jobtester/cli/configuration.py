"""Loading: the configuration file, its pipelines and its test inputs, with all problems in one message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobtester import logs, settings
from jobtester.daemon import Configuration
from jobtester.errors import ConfigError
from jobtester.pipelines import catalogue
from jobtester.pipelines.assets import Assets


def load(path: str, overrides: Mapping[str, Any] | None = None) -> Configuration:
    """Read and check everything that config.toml says. Raises ConfigError that names every problem."""
    where = Path(path)
    return of(settings.read_file(where), origin=str(where), overrides=overrides)


def of(
    content: Mapping[str, Any],
    *,
    origin: str,
    overrides: Mapping[str, Any] | None = None,
    simulated: bool = False,
) -> Configuration:
    """Check a configuration given as tables."""
    checked = settings.of(content, origin=origin, overrides=overrides)
    schedule_problem(checked)
    assets = Assets(Path(checked.assets) if checked.assets else None)
    found = catalogue.load(checked.pipelines, assets)
    return Configuration(checked, found, assets, origin, simulated)


def schedule_problem(checked: settings.Settings) -> None:
    """Raise ConfigError where the schedule's cron expression is none."""
    from jobtester.tick import clock

    try:
        clock.trigger(checked.schedule)
    except ValueError as error:
        raise ConfigError(f"schedule.cron: {error}") from error


def with_logs(configuration: Configuration, *, quiet: bool = False) -> Configuration:
    """Set the log up as configured; `quiet` leaves out what progress on a terminal shows anyway."""
    wanted = configuration.settings.logs
    level = "warning" if quiet and wanted.level in ("debug", "info") else wanted.level
    logs.set_up(level, wanted.format)
    return configuration
