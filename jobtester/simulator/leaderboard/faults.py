"""What can go wrong with the simulated Leaderboard, and the stages of a post that a test can wait for."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PostStage = Literal["arrived", "stored"]


@dataclass(frozen=True, slots=True)
class _JsonType:
    """The Python types of a fault's value in JSON, and how an error message names them."""

    accepted: tuple[type, ...]
    name: str


_JSON_TYPES = {
    bool: _JsonType((bool,), "true or false"),
    int: _JsonType((int,), "an integer"),
    float: _JsonType((int, float), "a number"),
    str: _JsonType((str,), "a text"),
    set: _JsonType((list,), "a list of texts"),
}


@dataclass(slots=True)
class Faults:
    """What goes wrong. Probabilities are 0 to 1, times in seconds; the defaults are a healthy server.

    Posts: `slow_insert_s` passes before a row is stored, `slow_answer_s` between storing it and responding.
    `fail_after_store` responds 500 although the row is stored, as when a time limit strikes during the commit.
    `post_errors` responds 500 and stores nothing. `withheld_answers` stores and never responds, `withheld_posts` does
    neither. `slow_commit_s` passes before a row is visible; over `db_timeout_s` the response is 500 nevertheless.

    Reads: the next `empty_reads` are `{}`, as through stale database connections (-1: all). `cut_reads` end their list
    early. A read takes `slow_reads_s` and fails over `db_timeout_s` or `statement_timeout_s` (0: none). Responses over
    `answer_limit` bytes (0: none) fail.

    `locked` locks the table of stats: statements wait for `db_timeout_s`, those of a stopped server until the table is
    unlocked. `gone_ai_regions` lose their `ai` row only, `gone_regions` every row.
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
        """Raise ValueError for an unknown value of `database_down`."""
        if self.database_down not in ("", "region", "500"):
            raise ValueError('database_down is "region", "500" or empty')

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Faults:
        """Return the faults that a JSON object names, the others off. ValueError if a name or type is wrong."""
        off = cls()
        values: dict[str, Any] = {}
        for name, value in body.items():
            if name not in {field.name for field in dataclasses.fields(cls)}:
                raise ValueError(f"no fault {name!r}")
            field_type = type(getattr(off, name))
            if type(value) not in _JSON_TYPES[field_type].accepted:
                raise ValueError(f"{name} is {_JSON_TYPES[field_type].name}")
            values[name] = field_type(value)
        return cls(**values)


class PostProgress:
    """Counts posts by the stage that they reached, and wakes who waits for the next one."""

    def __init__(self) -> None:
        self._counts: Counter[PostStage] = Counter()
        self._changed = asyncio.Condition()

    async def record(self, stage: PostStage) -> None:
        """Count a post that has reached the stage."""
        self._counts[stage] += 1
        async with self._changed:
            self._changed.notify_all()

    async def wait_for(self, stage: PostStage, count: int = 1) -> None:
        """Wait until `count` more posts have reached the stage."""
        target = self._counts[stage] + count
        async with self._changed:
            await self._changed.wait_for(lambda: self._counts[stage] >= target)
