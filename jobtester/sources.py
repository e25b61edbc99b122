"""Sources of the configuration: the file, the environment, and secret files, laid one over the other."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic_settings import BaseSettings, EnvSettingsSource

from jobtester.errors import ConfigError

ENV_PREFIX = "JOBTESTER_"
_OWN_VARIABLES = {"JOBTESTER_CONFIG", "JOBTESTER_SECRETS_DIR"}


class Environment(EnvSettingsSource):
    """Variables and secret files over the file's content; `GATEWAYS__0__URL` reaches into lists."""

    def __init__(self, settings_cls: type[BaseSettings], given: Mapping[str, Any]) -> None:
        self._given = given
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        files = {
            f"{ENV_PREFIX}{name}".lower(): text for name, text in secret_files(self.settings_cls.model_fields).items()
        }
        return {**files, **{name.lower(): value for name, value in os.environ.items()}}

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        return {name: laid_over(self._given.get(name), _decoded(value)) for name, value in found.items()}


def _decoded(value: object) -> object:
    """Turn texts that are JSON inside tables of free shape into what they mean."""
    if isinstance(value, dict):
        return {key: _decoded(inner) for key, inner in value.items()}
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def laid_over(below: object, above: object) -> object:
    """Merge tables key by key and lists by index; anything else replaces what is below."""
    if isinstance(above, dict) and isinstance(below, list) and all(key.isdecimal() for key in above):
        merged = list(below)
        for key, value in sorted(above.items(), key=lambda item: int(item[0])):
            at = int(key)
            if at < len(merged):
                merged[at] = laid_over(merged[at], value)
            else:
                merged.append(value)
        return merged
    if isinstance(above, dict) and isinstance(below, dict):
        return {**below, **{key: laid_over(below.get(key), value) for key, value in above.items()}}
    if isinstance(above, dict) and below is None and above and all(key.isdecimal() for key in above):
        return [above[key] for key in sorted(above, key=int)]
    return above


def unknown_variables(known: Collection[str]) -> list[str]:
    """Give the variables that look like ours but begin with no known key."""
    return [
        name
        for name in os.environ
        if name.upper().startswith(ENV_PREFIX)
        and name.upper() not in _OWN_VARIABLES
        and name.upper().removeprefix(ENV_PREFIX).split("__")[0].lower() not in known
    ]


def secret_files(known: Collection[str]) -> dict[str, str]:
    """Read the secret files whose names are keys, such as `leaderboard__secret`; those of others are passed over."""
    found: dict[str, str] = {}
    for file in secret_paths():
        if _key(file).split("__")[0] not in known:
            continue
        try:
            found[_key(file)] = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: the secret file cannot be read: {error}") from error
    return found


def secret_paths() -> list[Path]:
    """Give the files in /run/secrets, or where JOBTESTER_SECRETS_DIR says, that may be keys."""
    folder = Path(os.environ.get("JOBTESTER_SECRETS_DIR", "/run/secrets"))
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in files if "__" in file.name and file.is_file()]


def _key(file: Path) -> str:
    return file.name.lower().removeprefix(ENV_PREFIX.lower())


def read_file(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ConfigError that names the file and, for bad TOML, the place.

    A mark of byte order, which some editors of Windows put first, is passed over.
    """
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; write one with: jobtester config init {path}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder, not a file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, and deep nesting, besides bad TOML
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
