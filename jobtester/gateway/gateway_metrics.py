"""Read a gateway's own metrics as far as they are evidence: who succeeded, who failed, and since when it runs."""

from __future__ import annotations

import asyncio
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar

import structlog

from jobtester.domain.jobs import PipelineModel
from jobtester.errors import GatewayError
from jobtester.gateway.client import GatewayClient

log = structlog.get_logger()

K = TypeVar("K")

_SUCCESS = "livepeer_ai_request_latency_score"
_ERRORS = "livepeer_ai_request_errors"
_START = b"process_start_time_seconds"
_EVIDENCE = (_SUCCESS.encode(), _ERRORS.encode())
_HEAD = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}
_READ_TIMEOUT_S = 5.0
_PAUSE_PER_PARSE = 10  # parsing takes at most a tenth of a processor
_MAX_BYTES_PER_S = 4e6  # what is fetched passes through the event loop, and the gateway has to write it


class OrchestratorLabels(NamedTuple):
    """How an orchestrator names itself in a metric: URI and address, either may be empty."""

    uri: str
    address: str


class SeriesKey(NamedTuple):
    """One series: success or error, of which pipeline and model, of which orchestrator, and an error's code."""

    is_success: bool
    pipeline_model: PipelineModel
    orchestrator: OrchestratorLabels
    code: str

    @classmethod
    def from_text(cls, head: str) -> Self | None:
        """Parse a series' name and labels; None for what is no evidence."""
        match = _HEAD.fullmatch(head)
        if match is None or match["name"] not in (_SUCCESS, _ERRORS, _ERRORS + "_total"):
            return None
        labels = {}
        for name, value in _LABEL.findall(match["labels"] or ""):
            if "\\" in value:
                value = re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), value)
            labels[name] = value
        return cls(
            match["name"] == _SUCCESS,
            PipelineModel(labels.get("pipeline", ""), labels.get("model_name", "")),
            OrchestratorLabels(labels.get("orchestrator_uri", ""), labels.get("orchestrator_address", "")),
            labels.get("error_code", ""),
        )


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """The evidence in one response of /metrics.

    `read_at` is when the request began, in monotonic seconds. `lines` are hashes of the lines that are evidence;
    `changed` holds the series and values of those that were not in the snapshot before. `gateway_started_at` is in Unix
    seconds, None where the gateway does not say.
    """

    read_at: float
    lines: frozenset[int] = frozenset()
    changed: tuple[tuple[SeriesKey, float], ...] = ()
    gateway_started_at: float | None = None


@dataclass(frozen=True, slots=True)
class MetricsReading:
    """One reading as a job remembers it: its number in the history, when it began, and when the gateway started."""

    number: int
    read_at: float
    gateway_started_at: float | None = None


@dataclass(frozen=True, slots=True)
class SeriesChange:
    """What changed for one pipeline and model since a reading; `failed` maps orchestrators to error codes."""

    passed: frozenset[OrchestratorLabels]
    failed: Mapping[OrchestratorLabels, tuple[str, ...]]


class SeriesHistory:
    """Remembers for each series at which reading it changed last.

    So it costs no more to ask what changed since a reading than there are changes, however many series there are, and
    a job need not hold the whole snapshot that was taken before it.
    """

    def __init__(self) -> None:
        self.latest: MetricsReading | None = None
        self.lines: frozenset[int] = frozenset()
        self._counters: dict[SeriesKey, float] = {}
        self._passed: dict[PipelineModel, dict[OrchestratorLabels, int]] = {}
        self._failed: dict[PipelineModel, dict[tuple[OrchestratorLabels, str], int]] = {}

    def add(self, snapshot: MetricsSnapshot) -> MetricsReading:
        """Record a snapshot. A gauge changes to any other value, a counter only upwards."""
        number = self.latest.number + 1 if self.latest is not None else 0
        for series, value in snapshot.changed:
            previous = self._counters.get(series, 0.0)
            if not series.is_success:
                self._counters[series] = value
            # The first reading shows what happened before this process started: it changes nothing.
            if not number:
                continue
            if series.is_success:
                _move_to_end(self._passed.setdefault(series.pipeline_model, {}), series.orchestrator, number)
            elif value > previous:
                failures = self._failed.setdefault(series.pipeline_model, {})
                _move_to_end(failures, (series.orchestrator, series.code), number)
        self.lines = snapshot.lines
        self.latest = MetricsReading(number, snapshot.read_at, snapshot.gateway_started_at)
        return self.latest

    def changes_since(self, reading: MetricsReading, pipeline_model: PipelineModel) -> SeriesChange:
        """Return what has changed for one pipeline and model since a reading."""
        failed: dict[OrchestratorLabels, tuple[str, ...]] = {}
        for orchestrator, code in _newer_than(self._failed.get(pipeline_model, {}), reading.number):
            failed[orchestrator] = (*failed.get(orchestrator, ()), code)
        return SeriesChange(frozenset(_newer_than(self._passed.get(pipeline_model, {}), reading.number)), failed)


class MetricsReader:
    """Reads a gateway's /metrics after jobs, once for all jobs that wait for a reading.

    Never more often than every `pause_s` seconds, and less often where there is so much to read that it would cost
    more than a tenth of a processor, or keep the event loop from jobs.
    """

    def __init__(
        self, client: GatewayClient, *, pause_s: float = 0.05, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._min_pause_s = self._pause_s = pause_s
        self._clock = clock
        self._lock = asyncio.Lock()
        self.history = SeriesHistory()
        self.problem = ""

    @property
    def latest(self) -> MetricsReading | None:
        """Return the newest reading, None before the first."""
        return self.history.latest

    async def read_after(self, moment: float) -> MetricsReading | None:
        """Return a reading that began at or after `moment`, in monotonic seconds; None if /metrics is unavailable."""
        # Jobs end together. The first to come reads, and those behind it at the lock find a reading that is new enough
        # for them as well: what began after their ends shows all of them.
        async with self._lock:
            if self.latest is not None:
                if self.latest.read_at >= moment:
                    return self.latest
                await asyncio.sleep(max(0.0, self.latest.read_at + self._pause_s - self._clock()))
            # The start counts, not the end: a series may be written while the response is on its way.
            read_at = self._clock()
            try:
                status, body = await self._client.get_cli("/metrics", timeout_s=_READ_TIMEOUT_S)
                if status != 200:
                    raise GatewayError(
                        f"{self._client.cli_url}/metrics: answered {status}; run the gateway with -monitor"
                    )
            except GatewayError as error:
                if not self.problem:
                    log.warning("metrics_unavailable", gateway=self._client.name, problem=str(error))
                self.problem = str(error)
                return None
            if self.problem:
                log.info("metrics_recovered", gateway=self._client.name)
                self.problem = ""
            snapshot, parse_s = await asyncio.to_thread(_parse_timed, body, read_at, self.history.lines)
            self._pause_s = max(self._min_pause_s, _PAUSE_PER_PARSE * parse_s, len(body) / _MAX_BYTES_PER_S)
            return self.history.add(snapshot)


def parse_metrics(body: bytes, read_at: float, known_lines: frozenset[int] = frozenset()) -> MetricsSnapshot:
    """Parse Prometheus text. Lines that cannot be parsed are skipped.

    A gateway that has met a thousand orchestrators writes megabytes that hardly change. So lines are compared by their
    hashes first, and only those that are not among `known_lines` are parsed.
    """
    lines, new_lines, started_at = set(), [], None
    for line in io.BytesIO(body):
        if line.startswith(_EVIDENCE):
            line_hash = hash(line.rstrip())
            lines.add(line_hash)
            if line_hash not in known_lines:
                new_lines.append(line)
        elif line.startswith(_START):
            started_at = _parse_value(line.decode("utf-8", "replace").partition(" ")[2])
    changed = []
    for line in new_lines:
        head, brace, tail = line.decode("utf-8", "replace").rpartition("}")
        value, series = _parse_value(tail), SeriesKey.from_text(head + brace)
        if value is not None and series is not None:
            changed.append((series, value))
    return MetricsSnapshot(read_at, frozenset(lines), tuple(changed), started_at)


def _parse_timed(body: bytes, read_at: float, known_lines: frozenset[int]) -> tuple[MetricsSnapshot, float]:
    """Return a snapshot, and how many seconds it took to parse, without the wait for a thread."""
    started = time.perf_counter()
    return parse_metrics(body, read_at, known_lines), time.perf_counter() - started


def _parse_value(text: str) -> float | None:
    try:
        return float(text.split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return None


# A dict keeps the order of insertion. With each change moved to the end, the newest changes stand together, and nobody
# has to walk through thousands of series that have long been still.
def _move_to_end(order: dict[K, int], key: K, number: int) -> None:
    order.pop(key, None)
    order[key] = number


def _newer_than(order: dict[K, int], number: int) -> Iterator[K]:
    """Yield what changed after a reading, newest first."""
    for key in reversed(order):
        if order[key] <= number:
            return
        yield key
