"""A gateway's own metrics, as far as they are evidence: who succeeded, who failed, and since when it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from jobtester.domain.jobs import Pair

_SUCCESS = "livepeer_ai_request_latency_score"
_ERRORS = "livepeer_ai_request_errors"
_START = "process_start_time_seconds"
_HEAD = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
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
class Change:
    """What moved for one pair between two readings; `failed` gives the error codes by name."""

    passed: frozenset[Named]
    failed: Mapping[Named, tuple[str, ...]]


def parse(text: str, begun: float) -> Snapshot:
    """Read Prometheus text. Lines that are not understood are passed over."""
    passed: dict[Pair, dict[Named, float]] = {}
    failed: dict[Pair, dict[tuple[Named, str], float]] = {}
    started = None
    for line in text.splitlines():
        if not line.startswith((_SUCCESS, _ERRORS, _START)):
            continue
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


def change(before: Snapshot, after: Snapshot, pair: Pair) -> Change:
    """Compare two readings for one pair."""
    had_passed, had_failed = before.passed.get(pair, {}), before.failed.get(pair, {})
    passed = {who for who, value in after.passed.get(pair, {}).items() if had_passed.get(who) != value}
    failed: dict[Named, tuple[str, ...]] = {}
    for (who, code), value in after.failed.get(pair, {}).items():
        if value > had_failed.get((who, code), 0):
            failed[who] = (*failed.get(who, ()), code)
    return Change(frozenset(passed), failed)


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
        yield name, re.sub(r"\\.", lambda match: _ESCAPES.get(match[0], match[0]), value)
