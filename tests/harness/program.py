"""What the program has: commands, routes and series, for tests of what is written about them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import cast

from jobtester.metrics import Metrics
from jobtester.settings.model import Settings
from jobtester.web.app import build_app
from jobtester.web.context import WebContext
from tools import documentation_tables as tables


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser] | None:
    """Return the commands below a command, None if it has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return cast(dict[str, argparse.ArgumentParser], action.choices)
    return None


def every_command(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command that does something."""
    below = subcommands(parser)
    if below is None:
        yield words
    for name, inner in (below or {}).items():
        yield from every_command(inner, (*words, name))


def routes() -> set[tuple[str, str]]:
    """Return the method and path of each route."""
    app = build_app(cast(WebContext, None))
    declared = set()
    for route in app.router.routes():
        where = route.resource.canonical if route.resource is not None else ""
        if where.startswith("/static"):
            where = "/static/…"
        if route.method != "HEAD":
            declared.add((route.method, where))
    return declared


def fits(route: str, path: str) -> bool:
    """Whether a path is one of a route with placeholders."""
    return re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route)), path) is not None


def series() -> set[str]:
    """Return the names of all series."""
    names = set()
    for family in Metrics().registry.collect():
        names |= {family.name, f"{family.name}_total" if family.type == "counter" else family.name}
    return names


def is_variable(name: str) -> bool:
    """Whether the program reads a variable of the environment."""
    if name in ("JOBTESTER_CONFIG", "JOBTESTER_SECRETS_DIR", "JOBTESTER_PORT", "JOBTESTER_SERVICE_HOST"):
        return True
    keys = {path for path, _ in tables.leaves()} | set(Settings.model_fields)
    parts = [part.lower() for part in name.removeprefix("JOBTESTER_").split("__") if not part.isdecimal()]
    return name.startswith("JOBTESTER_") and ".".join(parts) in keys
