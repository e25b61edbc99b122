"""`jobtester config`: write a starter file, print the effective configuration."""

from __future__ import annotations

import argparse
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import SecretStr

from jobtester.configuration import Configuration
from jobtester.errors import ConfigError


def init_config(options: argparse.Namespace) -> int:
    """Write a commented starter file. Raises ConfigError if the file exists, unless --force is set."""
    starter = resources.files("jobtester").joinpath("starter.toml").read_text("utf-8")
    path = write_new_file(options.path, starter, force=options.force)
    print(f"{path} written; edit it, then check it: jobtester check -c {path}")  # noqa: T201
    return 0


def show_config(options: argparse.Namespace) -> int:
    """Print the effective configuration as TOML that loads as the same settings, but for masked secrets."""
    configuration = Configuration.load(options.config)
    for warning in configuration.warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
    sys.stdout.write(tomli_w.dumps(_mask_secrets(configuration.settings.as_tables())))
    return 0


def write_new_file(name: str, text: str, *, force: bool) -> Path:
    """Write a file and return its path. Raises ConfigError if it exists, unless `force` is set."""
    path = Path(name)
    if path.exists() and not force:
        raise ConfigError(f"{path}: exists already; name another path, or use --force to replace it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _mask_secrets(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return str(value)
    if isinstance(value, dict):
        return {key: _mask_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mask_secrets(inner) for inner in value]
    return value
