"""A gateway's own metrics, as far as they are evidence: who succeeded, who failed, and since when it runs."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from jobtester.domain.jobs import Pair

K = TypeVar("K")

_SUCCESS = "livepeer_ai_request_latency_score"
_ERRORS = "livepeer_ai_request_errors"
_START = "process_start_time_seconds"
_WANTED = tuple(name.encode() for name in (_SUCCESS, _ERRORS, _START))
_HEAD = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_NOTHING: Mapping[Any, float] = {}
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


class Named(NamedTuple):
    """What an orchestrator says of itself in a metric: URI and address, either may be empty."""

    uri: str
    address: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The evidence in one reading of /metrics.

    `begun` is when the reading began, monotonic. `passed` and `failed` hold the value of each series by
    pair; a failed one has an error code too. `started` is the gateway's own start in Unix seconds, None where it does
    not say.
    """

    begun: float
    passed: Mapping[Pair, Mapping[Named, float]] = field(default_factory=dict)
    failed: Mapping[Pair, Mapping[tuple[Named, str], float]] = field(default_factory=dict)
    started: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading as a job remembers it: its number in the ledger, when it began, and the gateway's own start."""

    number: int
    begun: float
    started: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What moved for one pair since a reading; `failed` gives the error codes by name."""

    passed: frozenset[Named]
    failed: Mapping[Named, tuple[str, ...]]


class Moves(NamedTuple):
    """Which series moved between two readings that follow each other."""

    passed: tuple[tuple[Pair, Named], ...]
    failed: tuple[tuple[Pair, tuple[Named, str]], ...]


def moves(before: Snapshot, after: Snapshot) -> Moves:
    """Compare two readings: a gauge moves to any other value, a running sum only up."""
    passed = tuple(
        (pair, who)
        for pair, values in after.passed.items()
        for who, value in values.items()
        if before.passed.get(pair, _NOTHING).get(who) != value
    )
    failed = tuple(
        (pair, key)
        for pair, sums in after.failed.items()
        for key, value in sums.items()
        if value > before.failed.get(pair, _NOTHING).get(key, 0)
    )
    return Moves(passed, failed)


class Ledger:
    """Remembers for each series at which reading it moved last.

    So what moved since a reading costs no more than what moved, however many series there are, and a job need not keep
    the whole reading that stood before it.
    """

    def __init__(self) -> None:
        """Know of no reading yet."""
        self.latest: Reading | None = None
        self.snapshot = Snapshot(float("-inf"))
        self._passed: dict[Pair, dict[Named, int]] = {}
        self._failed: dict[Pair, dict[tuple[Named, str], int]] = {}

    def take(self, snapshot: Snapshot, moved: Moves) -> Reading:
        """Take in a reading and what moved since the one before."""
        number = self.latest.number + 1 if self.latest is not None else 0
        for pair, who in moved.passed:
            _to_end(self._passed.setdefault(pair, {}), who, number)
        for pair, key in moved.failed:
            _to_end(self._failed.setdefault(pair, {}), key, number)
        self.snapshot = snapshot
        self.latest = Reading(number, snapshot.begun, snapshot.started)
        return self.latest

    def since(self, reading: Reading, pair: Pair) -> Change:
        """Say what has moved for one pair since a reading."""
        failed: dict[Named, tuple[str, ...]] = {}
        for who, code in _newer(self._failed.get(pair, {}), reading.number):
            failed[who] = (*failed.get(who, ()), code)
        return Change(frozenset(_newer(self._passed.get(pair, {}), reading.number)), failed)


def parse(body: bytes, begun: float) -> Snapshot:
    """Read Prometheus text, a line at a time. Lines that are not understood are passed over."""
    passed: dict[Pair, dict[Named, float]] = {}
    failed: dict[Pair, dict[tuple[Named, str], float]] = {}
    started = None
    for raw in io.BytesIO(body):
        if not raw.startswith(_WANTED):
            continue
        line = raw.decode("utf-8", "replace").rstrip()
        head, brace, tail = line.rpartition("}")
        head, _, tail = (head + brace, "", tail) if brace else line.partition(" ")
        try:
            value = float(tail.split(maxsplit=1)[0])
        except (ValueError, IndexError):
            continue
        series = _series(head)
        if head == _START:
            started = value
        elif series is not None and series.name == _SUCCESS:
            passed.setdefault(series.pair, {})[series.who] = value
        elif series is not None:
            failed.setdefault(series.pair, {})[series.who, series.code] = value
    return Snapshot(begun, passed, failed, started)


class _Series(NamedTuple):
    name: str
    pair: Pair
    who: Named
    code: str


@lru_cache(maxsize=100_000)
def _series(head: str) -> _Series | None:
    """Understand a series' name and labels, which are the same in every reading."""
    match = _HEAD.fullmatch(head)
    if match is None or match["name"] not in (_SUCCESS, _ERRORS, _ERRORS + "_total"):
        return None
    labels = dict(_labels(match["labels"] or ""))
    return _Series(
        match["name"],
        Pair(labels.get("pipeline", ""), labels.get("model_name", "")),
        Named(labels.get("orchestrator_uri", ""), labels.get("orchestrator_address", "")),
        labels.get("error_code", ""),
    )


def _labels(text: str) -> Iterator[tuple[str, str]]:
    for name, value in _LABEL.findall(text):
        if "\\" in value:
            value = re.sub(r"\\.", lambda match: _ESCAPES.get(match[0], match[0]), value)
        yield name, sys.intern(value)  # thousands of series share a few values


def _to_end(order: dict[K, int], key: K, number: int) -> None:
    """Put what has just moved last, so that a dict is in the order of moving."""
    order.pop(key, None)
    order[key] = number


def _newer(order: dict[K, int], number: int) -> Iterator[K]:
    """Give what moved after a reading, newest first."""
    for key in reversed(order):
        if order[key] <= number:
            return
        yield key
