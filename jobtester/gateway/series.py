"""A gateway's own metrics, as far as they are evidence: who succeeded, who failed, and since when it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from jobtester.domain.jobs import Pair

_SUCCESS = "livepeer_ai_request_latency_score"
_ERRORS = "livepeer_ai_request_errors"
_START = "process_start_time_seconds"
_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


class Named(NamedTuple):
    """What an orchestrator says of itself in a metric: URI and address, either may be empty."""

    uri: str
    address: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The evidence in one reading of /metrics.

    `begun` is when the reading began, monotonic. `passed` and `failed` hold each series' value; a failed one also its
    error code. `started` is the gateway's own start in Unix seconds, None where it does not say.
    """

    begun: float
    passed: Mapping[tuple[Pair, Named], float] = field(default_factory=dict)
    failed: Mapping[tuple[Pair, Named, str], float] = field(default_factory=dict)
    started: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What moved for one pair between two readings; `failed` gives the error codes by name."""

    passed: frozenset[Named]
    failed: Mapping[Named, tuple[str, ...]]


def parse(text: str, begun: float) -> Snapshot:
    """Read Prometheus text. Lines that are not understood are passed over."""
    passed: dict[tuple[Pair, Named], float] = {}
    failed: dict[tuple[Pair, Named, str], float] = {}
    started = None
    for line in text.splitlines():
        if not line.startswith((_SUCCESS, _ERRORS, _START)):
            continue
        match = _LINE.match(line)
        if match is None:
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        name = match["name"]
        if name == _START:
            started = value
            continue
        labels = dict(_labels(match["labels"] or ""))
        pair = Pair(labels.get("pipeline", ""), labels.get("model_name", ""))
        who = Named(labels.get("orchestrator_uri", ""), labels.get("orchestrator_address", ""))
        if name == _SUCCESS:
            passed[pair, who] = value
        elif name in (_ERRORS, _ERRORS + "_total"):
            failed[pair, who, labels.get("error_code", "")] = value
    return Snapshot(begun, passed, failed, started)


def change(before: Snapshot, after: Snapshot, pair: Pair) -> Change:
    """Compare two readings for one pair."""
    passed = {
        who for (one, who), value in after.passed.items() if one == pair and before.passed.get((one, who)) != value
    }
    failed: dict[Named, tuple[str, ...]] = {}
    for (one, who, code), value in after.failed.items():
        if one == pair and value > before.failed.get((one, who, code), 0):
            failed[who] = (*failed.get(who, ()), code)
    return Change(frozenset(passed), failed)


def _labels(text: str) -> Iterator[tuple[str, str]]:
    for name, value in _LABEL.findall(text):
        yield name, re.sub(r"\\.", lambda match: _ESCAPES.get(match[0], match[0]), value)
