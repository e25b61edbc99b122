"""`jobtester config`: write a starter file, print what is in force."""

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
from jobtester.settings.model import Settings


def init(options: argparse.Namespace) -> int:
    """Write a commented starter file; an existing one is kept unless --force is given."""
    path = Path(options.path)
    if path.exists() and not options.force:
        raise ConfigError(f"{path}: exists already; give another path, or --force to replace it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(resources.files("jobtester").joinpath("starter.toml").read_text("utf-8"), "utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    print(f"{path} written; edit it, then try it with: jobtester check -c {path}")  # noqa: T201
    return 0


def show(options: argparse.Namespace) -> int:
    """Print the effective configuration as TOML, secrets masked."""
    loaded = Configuration.load(options.config)
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
    sys.stdout.write(effective(loaded.settings))
    return 0


def effective(checked: Settings) -> str:
    """Write settings as TOML that reads back as the same settings, but for masked secrets."""
    return tomli_w.dumps(_masked(checked.as_tables()))


def _masked(value: Any) -> Any:
    """Put a mask where secrets are."""
    if isinstance(value, SecretStr):
        return str(value)
    if isinstance(value, dict):
        return {key: _masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return value
