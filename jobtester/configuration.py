"""The configuration: config.toml, its pipelines and its test inputs, with all problems in one message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import structlog

from jobtester.errors import ConfigError
from jobtester.logs import configure_logs
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import Catalogue, load_catalogue
from jobtester.settings.model import CheckedSettings, Settings
from jobtester.settings.sources import read_file, read_outside_values

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Configuration:
    """A checked configuration; `overrides` are the tables by which the command line replaced keys of the file."""

    settings: Settings
    catalogue: Catalogue
    assets: Assets
    origin: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    simulated: bool = False
    warnings: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: str, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read and check everything that config.toml says. Raises ConfigError that names every problem."""
        file = Path(path)
        try:
            content = read_file(file)
        except ConfigError as error:
            # Without the file nothing can be checked as a whole, but variables and secret files have problems of
            # their own, which would else come up one after the other.
            if not (others := read_outside_values(Settings).problems):
                raise
            raise ConfigError.from_problems(f"{file} is not usable", [str(error), *others]) from error
        return cls.from_tables(content, origin=str(file), overrides=overrides)

    @classmethod
    def from_tables(
        cls,
        content: Mapping[str, Any],
        *,
        origin: str,
        overrides: Mapping[str, Any] | None = None,
        simulated: bool = False,
    ) -> Self:
        """Check a configuration given as tables. Raises ConfigError that names every problem."""
        checked = CheckedSettings.from_tables(content, overrides)
        problems = list(checked.problems)
        # Where settings are refused, their tables hold placeholders, so that pipelines and assets are checked as well.
        folder, pipelines = checked.tables.get("assets"), checked.tables.get("pipelines", {})
        assets = Assets(Path(folder) if folder and isinstance(folder, str) else None)
        catalogue: Catalogue = {}
        try:
            catalogue = load_catalogue(pipelines if isinstance(pipelines, Mapping) else {}, assets)
        except ConfigError as error:
            problems += error.problems or [str(error)]
        if problems or checked.settings is None:
            raise ConfigError.from_problems(f"{origin} is not usable", problems)
        warnings = (*checked.warnings, *_find_short_sessions(checked.settings, catalogue))
        return cls(checked.settings, catalogue, assets, origin, dict(overrides or {}), simulated, warnings)

    def apply_log_settings(self, *, quiet: bool = False, show_warnings: bool = True) -> None:
        """Set up the log as configured, and log the configuration's warnings.

        `quiet` leaves out events that the progress display on a terminal shows anyway.
        """
        logs = self.settings.logs
        configure_logs("warning" if quiet and logs.level in ("debug", "info") else logs.level, logs.format)
        if show_warnings:
            for warning in self.warnings:
                log.warning("config_warning", problem=warning)


def _find_short_sessions(settings: Settings, catalogue: Catalogue) -> Iterator[str]:
    """Yield a warning for each app whose job may not fit into the longest session."""
    max_session_s = settings.live_runner.max_session
    for slug, definition in catalogue.items():
        needed_s = definition.longest_session_s if definition.runner else 0.0
        if settings.live_runner.enabled and definition.enabled and needed_s > max_session_s:
            name = "stream" if definition.is_video else "session"
            yield (
                f"live_runner.max_session: a {name} of pipelines.{slug} may take {needed_s:g} s, longer than "
                f"{max_session_s:g} s; one that does is not scored"
            )
