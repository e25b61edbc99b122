"""The statuses that a gateway shows, by streamId. One of an earlier job with the same id stays until it expires."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class _Entry:
    gateway_status: dict[str, Any] = field(default_factory=dict)
    event: dict[str, Any] = field(default_factory=dict)


class StatusStore:
    """Statuses of streams that run, and of those that ended a short while ago."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def begin(self, stream_id: str, whep_url: str) -> None:
        """Show that the gateway has taken a stream, without removing what an earlier one has left."""
        self._entries.setdefault(stream_id, _Entry()).gateway_status["whep_url"] = whep_url

    def set_error(self, stream_id: str, message: str) -> None:
        """Show an error, unless there was one before."""
        status = self._entries.setdefault(stream_id, _Entry()).gateway_status
        status.setdefault("error", {"error_message": message, "error_time": int(time.time() * 1000)})

    def set_event(self, stream_id: str, event: dict[str, Any]) -> None:
        """Show the last event of a container, with what the gateway has added to it."""
        self._entries.setdefault(stream_id, _Entry()).event = event

    def remove(self, stream_id: str) -> None:
        """Forget a stream, also if a later one with the same id runs."""
        self._entries.pop(stream_id, None)

    def describe(self, stream_id: str) -> dict[str, Any] | None:
        """Return a stream's status, None if nothing is known of it."""
        entry = self._entries.get(stream_id)
        return {**entry.event, "gateway_status": entry.gateway_status} if entry else None
