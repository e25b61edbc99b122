"""The simulator's own log of who really served what, against which a tester's results can be held."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Served:
    """One job as a gateway saw it.

    `address` and `service_uri` are of the orchestrator that had the last attempt, empty where there was none. Times are
    monotonic; `status` None means closed without an answer. `success`: the gateway took the orchestrator's result.
    `fault` is the one that was played, if any. `disconnected`: the client had gone before the answer.
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


class Log:
    """All served jobs of the network, in the order in which they ended."""

    def __init__(self) -> None:
        """Begin empty."""
        self.entries: list[Served] = []

    def add(self, **values: Any) -> None:
        """Append a job that ends now."""
        self.entries.append(Served(seq=len(self.entries) + 1, sent_at=time.monotonic(), **values))

    def since(self, seq: int) -> list[dict[str, Any]]:
        """Give the entries after that number as JSON values."""
        return [dataclasses.asdict(entry) for entry in self.entries[max(0, seq) :]]
