"""A store in a file of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jobtester.store.database import Database


@asynccontextmanager
async def open_database(path: Path, *, owner: bool = True) -> AsyncIterator[Database]:
    """Open a file, as the daemon does unless `owner` is false, and close it at the end."""
    database = Database(path)
    await database.open(owner=owner)
    try:
        yield database
    finally:
        await database.close()
