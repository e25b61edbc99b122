"""A gateway's own metrics, as far as they are evidence: who succeeded, who failed, and since when it runs."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from jobtester.domain.jobs import PipelineModel

K = TypeVar("K")

_SUCCESS = "livepeer_ai_request_latency_score"
_ERRORS = "livepeer_ai_request_errors"
_START = b"process_start_time_seconds"
_EVIDENCE = (_SUCCESS.encode(), _ERRORS.encode())
_HEAD = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


class OrchestratorLabels(NamedTuple):
    """What an orchestrator says of itself in a metric: URI and address, either may be empty."""

    uri: str
    address: str


class SeriesKey(NamedTuple):
    """One series: success or error, of which pair, of whom, and for an error its code."""

    is_success: bool
    pipeline_model: PipelineModel
    orchestrator: OrchestratorLabels
    code: str


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """The evidence in one reading of /metrics.

    `begun` is when the reading began, monotonic. `lines` are hashes of the lines that are evidence; `fresh` is what
    those say that were not in the reading before. `started` is the gateway's own start in Unix seconds, None where it
    does not say.
    """

    read_at: float
    lines: frozenset[int] = frozenset()
    changed: tuple[tuple[SeriesKey, float], ...] = ()
    gateway_started_at: float | None = None


@dataclass(frozen=True, slots=True)
class MetricsReading:
    """One reading as a job remembers it: its number in the ledger, when it began, and the gateway's own start."""

    number: int
    read_at: float
    gateway_started_at: float | None = None


@dataclass(frozen=True, slots=True)
class SeriesChange:
    """What moved for one pair since a reading; `failed` gives the error codes by name."""

    passed: frozenset[OrchestratorLabels]
    failed: Mapping[OrchestratorLabels, tuple[str, ...]]


class SeriesHistory:
    """Remembers for each series at which reading it moved last.

    So what moved since a reading costs no more than what moved, however many series there are, and a job need not keep
    the whole reading that stood before it.
    """

    def __init__(self) -> None:
        """Know of no reading yet."""
        self.latest: MetricsReading | None = None
        self.lines: frozenset[int] = frozenset()
        self._sums: dict[SeriesKey, float] = {}
        self._passed: dict[PipelineModel, dict[OrchestratorLabels, int]] = {}
        self._failed: dict[PipelineModel, dict[tuple[OrchestratorLabels, str], int]] = {}

    def add(self, snapshot: MetricsSnapshot) -> MetricsReading:
        """Take in a reading: a gauge moves to any other value, a running sum only up; the first moves nothing."""
        number = self.latest.number + 1 if self.latest is not None else 0
        for series, value in snapshot.changed:
            before = self._sums.get(series, 0.0)
            if not series.is_success:
                self._sums[series] = value
            if not number:
                continue
            if series.is_success:
                _to_end(self._passed.setdefault(series.pipeline_model, {}), series.orchestrator, number)
            elif value > before:
                _to_end(self._failed.setdefault(series.pipeline_model, {}), (series.orchestrator, series.code), number)
        self.lines = snapshot.lines
        self.latest = MetricsReading(number, snapshot.read_at, snapshot.gateway_started_at)
        return self.latest

    def changes_since(self, reading: MetricsReading, pair: PipelineModel) -> SeriesChange:
        """Say what has moved for one pair since a reading."""
        failed: dict[OrchestratorLabels, tuple[str, ...]] = {}
        for who, code in _newer(self._failed.get(pair, {}), reading.number):
            failed[who] = (*failed.get(who, ()), code)
        return SeriesChange(frozenset(_newer(self._passed.get(pair, {}), reading.number)), failed)


def parse_metrics(body: bytes, begun: float, before: frozenset[int] = frozenset()) -> MetricsSnapshot:
    """Read Prometheus text, of which only lines that were not there `before` are looked at more closely.

    Lines that are not understood are passed over.
    """
    lines, new, started = set(), [], None
    for line in io.BytesIO(body):
        if line.startswith(_EVIDENCE):
            known = hash(line.rstrip())
            lines.add(known)
            if known not in before:
                new.append(line)
        elif line.startswith(_START):
            started = _value(line.decode("utf-8", "replace").partition(" ")[2])
    fresh = []
    for line in new:
        head, brace, tail = line.decode("utf-8", "replace").rpartition("}")
        value, series = _value(tail), _series(head + brace)
        if value is not None and series is not None:
            fresh.append((series, value))
    return MetricsSnapshot(begun, frozenset(lines), tuple(fresh), started)


def _value(text: str) -> float | None:
    try:
        return float(text.split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return None


def _series(head: str) -> SeriesKey | None:
    """Understand a series' name and labels; None for what is no evidence."""
    match = _HEAD.fullmatch(head)
    if match is None or match["name"] not in (_SUCCESS, _ERRORS, _ERRORS + "_total"):
        return None
    labels = dict(_labels(match["labels"] or ""))
    return SeriesKey(
        match["name"] == _SUCCESS,
        PipelineModel(labels.get("pipeline", ""), labels.get("model_name", "")),
        OrchestratorLabels(labels.get("orchestrator_uri", ""), labels.get("orchestrator_address", "")),
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
