"""Events: what a gateway's event sink tells about jobs, read from either generation of envelopes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobtester.domain.jobs import Pair

_BATCH = {"ai_batch_request_completed", "ai_llm_request_completed"}
_BYOC = {"job_gateway_completed"}
_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Completed:
    """One job's end as the gateway saw it: `at` in Unix seconds on its clock, `duration_s` by its own measure."""

    gateway: str
    pair: Pair
    byoc: bool
    success: bool
    uri: str
    address: str
    at: float
    duration_s: float
    error: str
    arrived: float


def read(batch: object, arrived: float) -> Iterator[Completed]:
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
    """The newest events of one gateway, matched to jobs by pair, time and duration."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._events: deque[Completed] = deque(maxlen=_KEPT)
        self._offsets: deque[float] = deque(maxlen=64)

    def add(self, event: Completed) -> None:
        """Keep one event; the oldest goes when there are too many."""
        self._events.append(event)
        self._offsets.append(event.arrived - event.at)

    def matching(self, pair: Pair, ended_at: float, duration_s: float, *, byoc: bool) -> list[Completed]:
        """Give the events that may be about a job which ended at `ended_at` (our Unix seconds)."""
        return [one for one in self._events if self.fits(one, pair, ended_at, duration_s, byoc=byoc)]

    def fits(self, event: Completed, pair: Pair, ended_at: float, duration_s: float, *, byoc: bool) -> bool:
        """Tell whether an event may be about such a job: same pair, same end and duration within tolerance.

        The difference of the two clocks is taken to be the smallest delay seen of late.
        """
        if event.byoc != byoc or event.pair.pipeline != pair.pipeline:
            return False
        if not byoc and event.pair.model != pair.model:
            return False
        offset = min(self._offsets, default=0.0)
        if abs(event.at + offset - ended_at) > 1.5:
            return False
        return event.duration_s <= 0 or abs(event.duration_s - duration_s) <= 0.5 + 0.1 * duration_s


def _inner(envelope: dict[str, Any]) -> Iterator[dict[str, Any]]:
    content = envelope.get("payload", envelope.get("data"))
    for one in content if isinstance(content, list) else [content]:
        if isinstance(one, dict):
            yield one


def _completed(envelope: dict[str, Any], inner: dict[str, Any], arrived: float) -> Completed | None:
    kind = inner.get("type")
    byoc = kind in _BYOC
    if not byoc and kind not in _BATCH:
        return None
    who = inner.get("orchestrator_info") if isinstance(inner.get("orchestrator_info"), dict) else {}
    assert isinstance(who, dict)
    error = " ".join(_text(inner.get(key)) for key in ("error_type", "error") if _text(inner.get(key)))
    return Completed(
        gateway=_text(envelope.get("gateway")),
        pair=Pair(_text(inner.get("capability" if byoc else "pipeline")), _text(inner.get("model_id"))),
        byoc=byoc,
        success=inner.get("success") is True,
        uri=_text(who.get("url")) if byoc else _text(inner.get("orch_url")),
        address=_text(who.get("address")),
        at=_moment(inner.get("timestamp")) or _moment(envelope.get("timestamp")) or arrived,
        duration_s=_number(inner.get("duration_ms")) / 1000,
        error=error[:500],
        arrived=arrived,
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
    return value[:1000] if isinstance(value, str) else ""
