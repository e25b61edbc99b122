"""Settings: config.toml, the environment and secret files, checked as a whole before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Self

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from jobtester.errors import ConfigError
from jobtester.settings.environment import merge_entries
from jobtester.settings.placeholders import fill_placeholders
from jobtester.settings.schema import Path, deep_merge, did_you_mean, format_path, strip_optional, type_at
from jobtester.settings.sections import Tables
from jobtester.settings.sources import SecretsAndEnvironment, read_file, read_outside_values

_MAX_ROUNDS = 10


class Settings(Tables, BaseSettings):
    """Everything a person can tune; see docs/configuration.md."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources: secret files and the environment, over the file's content, which is given."""
        # The library's own sources know no keys inside lists, and stop at the first value that they cannot read.
        del env_settings, dotenv_settings, file_secret_settings
        return (SecretsAndEnvironment(settings_cls, init_settings()), init_settings)

    @classmethod
    def load(cls, path: FilePath, overrides: Mapping[str, Any] | None = None) -> Settings:
        """Read and check the whole configuration. Raises ConfigError with every problem and its key path."""
        return cls.from_tables(read_file(path), origin=str(path), overrides=overrides)

    @classmethod
    def from_tables(
        cls, content: Mapping[str, Any], *, origin: str = "configuration", overrides: Mapping[str, Any] | None = None
    ) -> Settings:
        """Check a configuration given as tables. Raises ConfigError with every problem and its key path."""
        checked = CheckedSettings.from_tables(content, overrides)
        if checked.settings is None:
            raise ConfigError.from_problems(f"{origin} is not usable", checked.problems)
        return checked.settings

    def as_tables(self) -> dict[str, Any]:
        """Return the settings as tables, without keys that are None; secrets are SecretStr, which print as a mask."""
        return {name: _plain(value) for name, value in self if value is not None}


@dataclass(frozen=True, slots=True)
class CheckedSettings:
    """The settings, None where there are problems, and the tables with placeholders for refused values."""

    settings: Settings | None
    tables: Mapping[str, Any]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def from_tables(cls, content: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Self:
        """Check tables, with secret files and the environment merged into them, and return every problem at once."""
        outside = read_outside_values(Settings)
        tables, misplaced = merge_entries(deep_merge(content, overrides or {}), outside.entries, Settings)
        repaired, refused = check_tables(tables, {entry.path: entry.source for entry in outside.entries})
        problems = (*outside.problems, *misplaced, *refused)
        warnings = []
        if outside.service_links:
            warnings.append(
                f"{outside.service_links[0]} and {len(outside.service_links) - 1} more variables are ignored: they are "
                "service links of Kubernetes; enableServiceLinks: false in the pod turns them off"
                if len(outside.service_links) > 1
                else f"{outside.service_links[0]} is ignored: it is a service link of Kubernetes; "
                "enableServiceLinks: false in the pod turns them off"
            )
        settings = None
        if not problems:
            try:
                settings = Settings(**tables)
            except ValidationError as error:  # a secret file has changed since it was read above
                problems = tuple(line for item in error.errors() for line in _format_error(dict(item), {}))
        return cls(settings, repaired, problems, tuple(warnings))


def check_tables(tables: dict[str, Any], sources: Mapping[Path, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the tables with placeholders for refused values, and every problem with its key path.

    `sources` names the variable or secret file that a value came from, by key path.
    """
    # pydantic applies the rules that tie keys together only where all keys are well-formed, so one pass would hide
    # the rest. Each refused value is replaced by a usable one and everything is checked again, until the rules of
    # the whole have been applied. A key is reported once: problems of its placeholder are left out.
    lines: dict[str, None] = {}
    reported: set[str] = set()
    for _ in range(_MAX_ROUNDS):
        try:
            Tables.model_validate(tables)
            break
        except ValidationError as error:
            errors = [dict(item) for item in error.errors()]
        new = [line for item in errors for line in _format_error(item, sources)]
        lines |= {line: None for line in new if line.split(":")[0] not in reported}
        reported |= {line.split(":")[0] for line in new}
        if any(not item["loc"] for item in errors):
            break
        tables = fill_placeholders(tables, errors, Settings)
    return tables, list(lines)


def _format_error(error: Mapping[str, Any], sources: Mapping[Path, str]) -> list[str]:
    """Return lines for one of pydantic's errors, with the key path first and the variable it came from last."""
    location = error["loc"]
    path = format_path(location)
    # A variable may hold a whole table, so a key's source may be any path above it.
    paths = [location[:length] for length in range(len(location), 0, -1)]
    source = next((f" (in {sources[parent]})" for parent in paths if parent in sources), "")
    if error["type"] == "extra_forbidden":
        model = strip_optional(type_at(Settings, location[:-1]))
        return [f"{path}: no such key{did_you_mean(location[-1], model.model_fields)}{source}"]
    if error["type"] == "missing":
        return [f"{path}: is missing{source}"]
    message = str(error["msg"]).removeprefix("Value error, ")
    if not path:
        return message.split("\n")
    value = error.get("input")
    is_private = "secret" in path or "token" in path or path == "notify.url" or "@" in str(value)
    shown = f" (given: {value!r})" if isinstance(value, str | int | float | bool) and not is_private else ""
    return [f"{path}: {message}{shown}{source}"]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(inner) for name, inner in value if inner is not None}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
