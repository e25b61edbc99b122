"""Read what a gateway's event sink reports about jobs, from either generation of envelopes, and match it to jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from jobtester.domain.jobs import PipelineModel
from jobtester.domain.untrusted_text import clean_name, clean_prose

_BATCH_TYPES = {"ai_batch_request_completed", "ai_llm_request_completed"}
_BYOC_TYPES = {"job_gateway_completed"}
_MAX_EVENTS = 4096
_MAX_ERROR_CHARS = 500
# The difference of the clocks is estimated from the delays of events, and batching makes those up to a second too long;
# the rest is for the way to the gateway and for the tester's own event loop.
_END_TOLERANCE_S = 1.5


@dataclass(frozen=True, slots=True)
class JobCompletedEvent:
    """One job's end as the gateway saw it: `ended_at` in Unix seconds on its clock, `duration_s` by its own measure.

    `arrived_at` is in Unix seconds on the tester's clock.
    """

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

    @classmethod
    def from_envelope(cls, envelope: dict[str, Any], content: dict[str, Any], arrived_at: float) -> Self | None:
        """Parse one entry of an envelope; None where it is not the end of a job."""
        kind = content.get("type")
        if not isinstance(kind, str) or kind not in _BATCH_TYPES | _BYOC_TYPES:
            return None
        byoc = kind in _BYOC_TYPES
        info = content.get("orchestrator_info")
        orchestrator = info if isinstance(info, dict) else {}
        errors = (content.get(key) for key in ("error_type", "error"))
        texts = (clean_prose(error, 2 * _MAX_ERROR_CHARS) for error in errors if isinstance(error, str))
        duration_ms = content.get("duration_ms")
        if not isinstance(duration_ms, int | float) or isinstance(duration_ms, bool) or not 0 <= duration_ms < 1e12:
            duration_ms = 0
        return cls(
            gateway=clean_name(envelope.get("gateway")),
            pipeline_model=PipelineModel(
                clean_name(content.get("capability" if byoc else "pipeline")), clean_name(content.get("model_id"))
            ),
            byoc=byoc,
            is_success=content.get("success") is True,
            service_uri=clean_name(orchestrator.get("url") if byoc else content.get("orch_url")),
            address=clean_name(orchestrator.get("address")),
            ended_at=_parse_time(content.get("timestamp")) or _parse_time(envelope.get("timestamp")) or arrived_at,
            duration_s=duration_ms / 1000,
            error=" ".join(text for text in texts if text)[:_MAX_ERROR_CHARS],
            arrived_at=arrived_at,
        )


def parse_events(batch: object, arrived_at: float) -> Iterator[JobCompletedEvent]:
    """Yield the completed jobs in a sink's POST, which arrived at `arrived_at` in Unix seconds; skip all the rest."""
    for envelope in batch if isinstance(batch, list) else [batch]:
        if not isinstance(envelope, dict):
            continue
        contents = envelope.get("payload", envelope.get("data"))
        for content in contents if isinstance(contents, list) else [contents]:
            if not isinstance(content, dict):
                continue
            event = JobCompletedEvent.from_envelope(envelope, content, arrived_at)
            if event is not None:
                yield event


class EventLog:
    """The newest events of one gateway, matched to jobs by pipeline, model, time and duration.

    A gateway batches its events: `patience_s` is how many seconds to wait for one that would change a result.
    """

    def __init__(self, patience_s: float = 0.0) -> None:
        self.patience_s = patience_s
        self._events: deque[JobCompletedEvent] = deque(maxlen=_MAX_EVENTS)
        self._delays: deque[float] = deque(maxlen=64)
        self._offset_s = 0.0
        self._arrival = asyncio.Event()

    def add(self, event: JobCompletedEvent) -> None:
        """Append an event; the oldest goes when there are too many."""
        self._events.append(event)
        # An event's delay is its way plus the difference of the two clocks. The way varies and the difference does not,
        # so the smallest delay of late is nearly all difference.
        self._delays.append(event.arrived_at - event.ended_at)
        self._offset_s = min(self._delays)
        # A task that waits now holds the old Event and wakes; a later one waits for the next arrival.
        self._arrival.set()
        self._arrival = asyncio.Event()

    async def find(
        self, pipeline_model: PipelineModel, ended_at: float, duration_s: float, *, byoc: bool, wait: bool
    ) -> list[JobCompletedEvent]:
        """Return the events that may be about a job that ended at `ended_at`, in Unix seconds on the tester's clock.

        With `wait`, wait for one for `patience_s` seconds at most.
        """
        events = self._matching(pipeline_model, ended_at, duration_s, byoc)
        if wait:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.patience_s):
                    while not events:
                        await self._arrival.wait()
                        events = self._matching(pipeline_model, ended_at, duration_s, byoc)
        return events

    def matches(
        self, event: JobCompletedEvent, pipeline_model: PipelineModel, ended_at: float, duration_s: float, *, byoc: bool
    ) -> bool:
        """Return True if an event may be about such a job: same pipeline and model, and about the same time."""
        if event.byoc != byoc or event.pipeline_model.pipeline != pipeline_model.pipeline:
            return False
        # An event of an external capability carries no model.
        if not byoc and event.pipeline_model.model != pipeline_model.model:
            return False
        if abs(event.ended_at + self._offset_s - ended_at) > _END_TOLERANCE_S:
            return False
        # The tester's round trip has the way to the gateway and back in it, the gateway's duration has not.
        return event.duration_s <= 0 or abs(event.duration_s - duration_s) <= 0.5 + 0.1 * duration_s

    def _matching(
        self, pipeline_model: PipelineModel, ended_at: float, duration_s: float, byoc: bool
    ) -> list[JobCompletedEvent]:
        events = []
        for event in reversed(self._events):
            if event.arrived_at < ended_at - _END_TOLERANCE_S:  # this one and all before came before the job's end
                break
            if self.matches(event, pipeline_model, ended_at, duration_s, byoc=byoc):
                events.append(event)
        return events


def _parse_time(value: object) -> float | None:
    """Parse RFC 3339, or Unix milliseconds as number or text; None for anything else."""
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
