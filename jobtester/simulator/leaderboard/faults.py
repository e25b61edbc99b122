"""What can go wrong with the simulated Leaderboard, and the moments of a post that a test may wait for."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Moment = Literal["arrived", "stored"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a value of a fault's type is written as in JSON."""

    accepted: tuple[type, ...]
    name: str


_KINDS = {
    bool: _Kind((bool,), "true or false"),
    int: _Kind((int,), "an integer"),
    float: _Kind((int, float), "a number"),
    str: _Kind((str,), "a text"),
    set: _Kind((list,), "a list of texts"),
}


@dataclass(slots=True)
class Faults:
    """What goes wrong; probabilities 0 to 1, times in seconds. Everything off means a healthy server.

    `slow_insert_s` passes before a row is stored, `slow_answer_s` between storing and answering. `fail_after_store`
    answers 500 although the row is there, as when a time limit strikes during the commit. The next `empty_reads`
    reads of rows are `{}`, as through stale database connections (-1: all of them); `cut_reads` end their list early.
    `post_errors` answers 500 and stores nothing. `gone_ai_regions` lose their `ai` row only.
    `withheld_answers` stores and never answers; `withheld_posts` does neither. `locked` locks the table of stats:
    statements wait for `db_timeout_s`, those of a stopped server until it is unlocked. `slow_commit_s` passes before a
    row is seen, and is answered 500 where it is longer than `db_timeout_s`. A read takes `slow_reads_s`; over
    `db_timeout_s` or `statement_timeout_s` (0: none) it fails. Answers over `answer_limit` bytes (0: none) fail.
    """

    database_down: str = ""
    slow_insert_s: float = 0.0
    slow_answer_s: float = 0.0
    drop_before_store: float = 0.0
    drop_after_store: float = 0.0
    fail_after_store: float = 0.0
    status: int = 0
    status_body: str = "<html>Bad Gateway</html>"
    status_times: int = -1
    retry_after: str = ""
    reset_mid_body: float = 0.0
    refuse_signature: bool = False
    raw_stats_down: bool = False
    raw_stats_cached: bool = False
    empty_reads: int = 0
    cut_reads: float = 0.0
    post_errors: float = 0.0
    withheld_answers: float = 0.0
    withheld_posts: float = 0.0
    locked: bool = False
    db_timeout_s: float = 20.0
    statement_timeout_s: float = 0.0
    slow_commit_s: float = 0.0
    slow_reads_s: float = 0.0
    answer_limit: int = 0
    gone_ai_regions: set[str] = field(default_factory=set)
    gone_regions: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Refuse a way of being down that is none."""
        if self.database_down not in ("", "region", "500"):
            raise ValueError('database_down is "region", "500" or empty')


def of(given: Mapping[str, Any]) -> Faults:
    """Make faults of JSON values, those that are not given off. ValueError says which is wrong."""
    off = Faults()
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in {one.name for one in dataclasses.fields(Faults)}:
            raise ValueError(f"no fault {name!r}")
        kind = type(getattr(off, name))
        if type(value) not in _KINDS[kind].accepted:
            raise ValueError(f"{name} is {_KINDS[kind].name}")
        values[name] = kind(value)
    return Faults(**values)


class Moments:
    """Counts posts by how far they got, and wakes who waits for the next."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts: Counter[Moment] = Counter()
        self._happened = asyncio.Condition()

    async def tell(self, moment: Moment) -> None:
        """Say that a post has got so far."""
        self._counts[moment] += 1
        async with self._happened:
            self._happened.notify_all()

    async def next(self, moment: Moment, count: int = 1) -> None:
        """Wait until so many more posts have got so far."""
        wanted = self._counts[moment] + count
        async with self._happened:
            await self._happened.wait_for(lambda: self._counts[moment] >= wanted)
