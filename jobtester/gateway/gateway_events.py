"""Events: what a gateway's event sink tells about jobs, read from either generation of envelopes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobtester.domain.jobs import PipelineModel
from jobtester.domain.untrusted_text import clean_name, clean_prose

_BATCH = {"ai_batch_request_completed", "ai_llm_request_completed"}
_BYOC = {"job_gateway_completed"}
_KEPT = 4096
_TOLERANCE_S = 1.5


@dataclass(frozen=True, slots=True)
class JobCompletedEvent:
    """One job's end as the gateway saw it: `at` in Unix seconds on its clock, `duration_s` by its own measure."""

    gateway: str
    pipeline_model: PipelineModel
    byoc: bool
    is_success: bool
    service_uri: str
    address: str
    ended_at: float
    duration_s: float
    error: str
    arrived_at: float


def parse_events(batch: object, arrived: float) -> Iterator[JobCompletedEvent]:
    """Pick the completed jobs out of a sink's POST; everything else, junk included, is passed over.

    `arrived` is Unix seconds on our clock.
    """
    for envelope in batch if isinstance(batch, list) else [batch]:
        if not isinstance(envelope, dict):
            continue
        for inner in _inner(envelope):
            event = _completed(envelope, inner, arrived)
            if event is not None:
                yield event


class EventLog:
    """The newest events of one gateway, matched to jobs by pair, time and duration.

    A gateway collects its events before it sends them: `patience_s` seconds is how long one is waited for.
    """

    def __init__(self, patience_s: float = 0.0) -> None:
        """Start with nothing."""
        self.patience_s = patience_s
        self._events: deque[JobCompletedEvent] = deque(maxlen=_KEPT)
        self._delays: deque[float] = deque(maxlen=64)
        self._offset_s = 0.0
        self._arrival = asyncio.Event()

    def add(self, event: JobCompletedEvent) -> None:
        """Keep one event; the oldest goes when there are too many.

        The difference of the two clocks is taken to be the smallest delay seen of late.
        """
        self._events.append(event)
        self._delays.append(event.arrived_at - event.ended_at)
        self._offset_s = min(self._delays)
        self._arrival.set()
        self._arrival = asyncio.Event()

    async def find(
        self, pair: PipelineModel, ended_at: float, duration_s: float, *, byoc: bool, wait: bool
    ) -> list[JobCompletedEvent]:
        """Give the events that may be about a job which ended at `ended_at` (our Unix seconds), or wait for one."""
        found = self._matching(pair, ended_at, duration_s, byoc)
        if wait:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.patience_s):
                    while not found:
                        await self._arrival.wait()
                        found = self._matching(pair, ended_at, duration_s, byoc)
        return found

    def matches(
        self, event: JobCompletedEvent, pair: PipelineModel, ended_at: float, duration_s: float, *, byoc: bool
    ) -> bool:
        """Tell whether an event may be about such a job: same pair, same end and duration within tolerance."""
        if event.byoc != byoc or event.pipeline_model.pipeline != pair.pipeline:
            return False
        if not byoc and event.pipeline_model.model != pair.model:
            return False
        if abs(event.ended_at + self._offset_s - ended_at) > _TOLERANCE_S:
            return False
        return event.duration_s <= 0 or abs(event.duration_s - duration_s) <= 0.5 + 0.1 * duration_s

    def _matching(self, pair: PipelineModel, ended_at: float, duration_s: float, byoc: bool) -> list[JobCompletedEvent]:
        """Look through the newest events, down to those that were there before the job can have ended."""
        found = []
        for event in reversed(self._events):
            if event.arrived_at < ended_at - _TOLERANCE_S:
                break
            if self.matches(event, pair, ended_at, duration_s, byoc=byoc):
                found.append(event)
        return found


def _inner(envelope: dict[str, Any]) -> Iterator[dict[str, Any]]:
    content = envelope.get("payload", envelope.get("data"))
    for one in content if isinstance(content, list) else [content]:
        if isinstance(one, dict):
            yield one


def _completed(envelope: dict[str, Any], inner: dict[str, Any], arrived: float) -> JobCompletedEvent | None:
    kind = inner.get("type")
    byoc = kind in _BYOC
    if not byoc and kind not in _BATCH:
        return None
    who = inner.get("orchestrator_info") if isinstance(inner.get("orchestrator_info"), dict) else {}
    assert isinstance(who, dict)
    error = " ".join(_text(inner.get(key)) for key in ("error_type", "error") if _text(inner.get(key)))
    return JobCompletedEvent(
        gateway=clean_name(envelope.get("gateway")),
        pipeline_model=PipelineModel(
            clean_name(inner.get("capability" if byoc else "pipeline")), clean_name(inner.get("model_id"))
        ),
        byoc=byoc,
        is_success=inner.get("success") is True,
        service_uri=clean_name(who.get("url")) if byoc else clean_name(inner.get("orch_url")),
        address=clean_name(who.get("address")),
        ended_at=_moment(inner.get("timestamp")) or _moment(envelope.get("timestamp")) or arrived,
        duration_s=_number(inner.get("duration_ms")) / 1000,
        error=error[:500],
        arrived_at=arrived,
    )


def _moment(value: object) -> float | None:
    """Read RFC 3339, or Unix milliseconds as number or text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value / 1000 if 0 < value < 1e15 else None
    if isinstance(value, str):
        if value.isascii() and value.isdecimal() and len(value) < 16:
            return int(value) / 1000
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    return None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 else 0.0


def _text(value: object) -> str:
    return clean_prose(value, 1000) if isinstance(value, str) else ""
