"""The simulator's own record of which orchestrator served which job, to compare a tester's results with."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class LoggedJob:
    """One job as a gateway saw it. Times are on the monotonic clock.

    `address` and `service_uri` are those of the orchestrator that had the last attempt, empty if there was none.
    `received_at` is when the whole request was read, `sent_at` when the response's last byte was written, or when the
    job ended without a response. `status` is None if the connection was closed without a response.
    `success`: the gateway accepted the orchestrator's result. `fault` is the one that was simulated, if any.
    `disconnected`: the client had gone before the response. `reached` counts the tries whose job an orchestrator
    accepted, `refused` those for which it had no free slot.
    """

    seq: int
    gateway: str
    mode: str
    request_id: str
    pipeline: str
    model: str
    address: str
    service_uri: str
    received_at: float
    sent_at: float
    status: int | None
    success: bool
    tries: int
    fault: str
    disconnected: bool
    reached: int = 0
    refused: int = 0


class JobLog:
    """All jobs of the network, in the order in which they ended."""

    def __init__(self) -> None:
        self.entries: list[LoggedJob] = []

    def add(self, **values: Any) -> LoggedJob:
        """Append a job that ends now, and return its entry."""
        self.entries.append(LoggedJob(seq=len(self.entries) + 1, sent_at=time.monotonic(), **values))
        return self.entries[-1]

    def entries_after(self, seq: int) -> list[dict[str, Any]]:
        """Return the entries that follow entry number `seq`, as JSON values."""
        return [dataclasses.asdict(entry) for entry in self.entries[max(0, seq) :]]


async def finish_response(
    request: web.Request, response: web.StreamResponse, entry: LoggedJob | None
) -> web.StreamResponse:
    """Write a response that is not written yet, and record the time of its last byte."""
    if not response.prepared and request.transport is not None and not request.transport.is_closing():
        await response.prepare(request)
        await response.write_eof()
    if entry is not None:
        entry.sent_at = time.monotonic()
    return response
