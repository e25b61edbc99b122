"""Sources of the configuration: read the file, secret files named like keys, and the environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from jobtester.errors import ConfigError
from jobtester.settings.environment import OutsideValues, merge_entries


class SecretsAndEnvironment(PydanticBaseSettingsSource):
    """Merges secret files, and over them the environment, into the content of the file."""

    def __init__(self, settings_cls: type[BaseSettings], content: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._content = content

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: keys are not read one by one, since they may lie in lists."""
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the file's content with everything else merged into it."""
        outside = read_outside_values(self.settings_cls)
        return merge_entries(self._content, outside.entries, self.settings_cls)[0]


def read_outside_values(model: type[BaseModel]) -> OutsideValues:
    """Return the values of secret files and, after them, those of the environment, which therefore win."""
    secrets, unreadable = read_secret_files(model.model_fields)
    files = OutsideValues.from_texts(secrets, model)
    variables = OutsideValues.from_variables(os.environ, model)
    return OutsideValues(
        (*files.entries, *variables.entries),
        (*unreadable, *files.problems, *variables.problems),
        variables.service_links,
    )


def read_secret_files(first_keys: Collection[str]) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Return each secret file's key with the file and its text, and a problem for each that cannot be read.

    The key is the file's name, such as `leaderboard__secret`. Files whose name begins with none of `first_keys` are
    somebody else's, and are left alone.
    """
    texts: dict[str, tuple[str, str]] = {}
    problems: list[str] = []
    folder = _secrets_folder()
    try:
        files = _list_files(folder)
    except OSError as error:
        return {}, [f"{folder}: the folder of secrets cannot be read: {error.strerror}"]
    for file in files:
        key = file.name.lower()
        if key.removeprefix("jobtester_").split("__")[0] not in first_keys:
            continue
        try:
            texts[key] = (str(file), file.read_text("utf-8-sig").strip())
        except OSError as error:
            problems.append(f"{file}: the secret file cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            problems.append(f"{file}: the secret file is not UTF-8 text")
    return texts, problems


def list_secret_files() -> list[Path]:
    """Return the files in /run/secrets, or in JOBTESTER_SECRETS_DIR, that may be keys; none if unreadable."""
    try:
        return _list_files(_secrets_folder())
    except OSError:
        return []


def _secrets_folder() -> Path:
    return Path(os.environ.get("JOBTESTER_SECRETS_DIR", "/run/secrets"))


def _list_files(folder: Path) -> list[Path]:
    try:
        files = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []  # no folder holds no secrets
    return [file for file in files if "__" in file.name and file.is_file()]


def read_file(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ConfigError that names the file and, for bad TOML, the place."""
    try:
        # "-sig": some editors of Windows put a byte order mark first.
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; write one with: jobtester config init {path}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder, not a file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, and deep nesting, besides bad TOML
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
