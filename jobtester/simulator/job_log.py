"""The simulator's own log of who really served what, against which a tester's results can be held."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class Served:
    """One job as a gateway saw it.

    `address` and `service_uri` are of the orchestrator that had the last attempt, empty where there was none. Times are
    monotonic, `received_at` of the whole request, `sent_at` of the answer's last byte, or of its end where there was
    none; `status` None means closed without an answer. `success`: the gateway took the orchestrator's result.
    `fault` is the one that was played, if any. `disconnected`: the client had gone before the answer. `reached` counts
    the tries whose job an orchestrator took on, `refused` those for which it had no slot.
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


class Log:
    """All served jobs of the network, in the order in which they ended."""

    def __init__(self) -> None:
        """Begin empty."""
        self.entries: list[Served] = []

    def add(self, **values: Any) -> Served:
        """Append a job that ends now."""
        self.entries.append(Served(seq=len(self.entries) + 1, sent_at=time.monotonic(), **values))
        return self.entries[-1]

    def since(self, seq: int) -> list[dict[str, Any]]:
        """Give the entries after that number as JSON values."""
        return [dataclasses.asdict(entry) for entry in self.entries[max(0, seq) :]]


async def finish(request: web.Request, response: web.StreamResponse, entry: Served | None) -> web.StreamResponse:
    """Write out what is left of an answer, and note in the log that it is sent."""
    if not response.prepared and request.transport is not None and not request.transport.is_closing():
        await response.prepare(request)
        await response.write_eof()
    if entry is not None:
        entry.sent_at = time.monotonic()
    return response
