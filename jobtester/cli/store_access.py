"""Open the configured store for a command, beside a daemon that may be running, and check what people type."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from jobtester.errors import StoreError, UsageError
from jobtester.settings.model import Settings
from jobtester.store.database import Database
from jobtester.store.ticks import Ticks

T = TypeVar("T")


def with_store(options: argparse.Namespace, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work` on the configured store and return its value. Raises StoreError if the store does not exist."""
    # Settings alone: a broken test input or pipeline must not keep anybody from reading results.
    path = Path(Settings.load(Path(options.config)).store.path)
    if not path.exists():
        raise StoreError(f"store.path: {path} does not exist yet; run a tick first")

    async def run() -> T:
        database = Database(path)
        await database.open(owner=False)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


async def find_tick_id(database: Database, tick: str) -> str:
    """Return the id of a tick, which may be given as `last`. Raises UsageError if there is no such tick."""
    row = await Ticks(database).get(tick)
    if row is None:
        problem = "no tick has run yet" if tick == "last" else f"there is no tick {tick!r}; `last` names the newest"
        raise UsageError(f"tick: {problem}")
    return row.id


def check_text(name: str, value: str | None) -> str:
    """Return an option's text, empty if it was not set. Raises UsageError if it is not valid Unicode."""
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:  # an argument in another encoding than the locale's
        raise UsageError(f"--{name}: is not text") from error
    return value or ""


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise UsageError if an option's value is not among its choices."""
    if value not in choices:
        raise UsageError(f"--{name}: one of {', '.join(choices)}; not {value!r}")
