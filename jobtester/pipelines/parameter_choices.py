"""Choose one of several values of a parameter for each tick, the same for every orchestrator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any


def choose(value: Any, seed: int, place: str) -> Any:
    """Return a value in which every list is replaced by one of its items.

    A list of tables is data, and so is a chosen item: `[["a", "b"]]` is the list of both. What is chosen depends on
    `seed` and on `place`, a name for where the value stands, and on nothing else.
    """
    # By hash and not by a random generator: whether another parameter is added or left out, this one stays.
    if isinstance(value, Mapping):
        return {key: choose(item, seed, f"{place}.{key}") for key, item in value.items()}
    if not isinstance(value, list):
        return value
    if _is_list_of_tables(value):
        return [choose(item, seed, f"{place}.{index}") for index, item in enumerate(value)]
    return value[pick_index(len(value), seed, place)]


def all_choices(value: Any) -> Iterator[Any]:
    """Yield every value that may be chosen for a parameter."""
    if isinstance(value, list) and not _is_list_of_tables(value):
        yield from value
    else:
        yield value


def has_empty_list(value: Any) -> bool:
    """Return True if a list in the value has nothing to choose from."""
    if isinstance(value, Mapping):
        return any(map(has_empty_list, value.values()))
    if not isinstance(value, list):
        return False
    return not value or (_is_list_of_tables(value) and any(map(has_empty_list, value)))


def pick_index(count: int, seed: int, place: str) -> int:
    """Return a number from 0 to below `count`, each equally likely over the seeds."""
    digest = hashlib.sha256(f"{seed} {place}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def _is_list_of_tables(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(item, Mapping) for item in items)
