"""Choices: parameters with several values, of which one is taken in each tick, the same for every orchestrator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any


def choose(value: Any, seed: int, place: str) -> Any:
    """Give a value in which every list is replaced by one of its items.

    A list of tables is data, and so is a chosen item: `[["a", "b"]]` is the list of both. What is chosen depends on
    `seed` and on `place`, a name for where the value stands, and on nothing else.
    """
    if isinstance(value, Mapping):
        return {key: choose(item, seed, f"{place}.{key}") for key, item in value.items()}
    if not isinstance(value, list):
        return value
    if _tables(value):
        return [choose(item, seed, f"{place}.{index}") for index, item in enumerate(value)]
    return value[pick_index(len(value), seed, place)]


def all_choices(value: Any) -> Iterator[Any]:
    """Give every value that may be chosen at the top of a parameter."""
    if isinstance(value, list) and not _tables(value):
        yield from value
    else:
        yield value


def has_empty_list(value: Any) -> bool:
    """Tell whether there is a list with nothing to choose from."""
    if isinstance(value, Mapping):
        return any(map(has_empty_list, value.values()))
    if not isinstance(value, list):
        return False
    return not value or (_tables(value) and any(map(has_empty_list, value)))


def pick_index(count: int, seed: int, place: str) -> int:
    """Give a number below `count`; every one is equally likely over the seeds."""
    digest = hashlib.sha256(f"{seed} {place}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def _tables(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(item, Mapping) for item in items)
