"""The simulator's own record of which orchestrator served which job, to compare a tester's results with."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from jobtester.simulator.timed_sockets import find_connection


@dataclass(slots=True)
class LoggedJob:
    """One job as a gateway saw it. Times are on the monotonic clock.

    `address` and `service_uri` are those of the orchestrator that had the last attempt, empty if there was none.
    `received_at` is when the last byte of the request arrived, `sent_at` when the last of the response left, or when
    the job ended without a response. `status` is None if the connection was closed without a response.
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


@dataclass(slots=True)
class LoggedRunnerRequest:
    """One request to a runner that an orchestrator serves itself. Times are on the monotonic clock.

    `kind`: `app` (a single-shot job), `reserve`, `call` (within a session), `stop` or `payment`. `outcome`: `served`,
    `challenged` (asked to pay), `app_error` (the app's own error), `refused` (an error of the orchestrator, whose text
    is `error`), `broken` (the connection or the body) or `disconnected` (the client had gone first). `status` is None
    without a response. `fault` is what was simulated, `paid_wei` what this request paid.
    `request_id` is its `X-Request-ID`, `path` what follows the runner's URL.
    """

    seq: int
    kind: str
    request_id: str
    address: str
    service_uri: str
    runner_id: str
    app: str
    version: str
    mode: str
    method: str
    path: str
    received_at: float
    sent_at: float
    outcome: str
    status: int | None
    error: str
    fault: str
    session_id: str
    manifest_id: str
    payer: str
    paid_wei: int


class JobLog:
    """All jobs of the network, in the order in which they ended; those of gateways and of runners apart."""

    def __init__(self) -> None:
        self.entries: list[LoggedJob] = []
        self.runner_requests: list[LoggedRunnerRequest] = []

    def add(self, **values: Any) -> LoggedJob:
        """Append a job that ends now, and return its entry."""
        self.entries.append(LoggedJob(seq=len(self.entries) + 1, sent_at=time.monotonic(), **values))
        return self.entries[-1]

    def entries_after(self, seq: int) -> list[dict[str, Any]]:
        """Return the entries that follow entry number `seq`, as JSON values."""
        return [dataclasses.asdict(entry) for entry in self.entries[max(0, seq) :]]

    def add_runner_request(self, **values: Any) -> LoggedRunnerRequest:
        """Append a request to a runner that ends now, and return its entry."""
        entry = LoggedRunnerRequest(seq=len(self.runner_requests) + 1, sent_at=time.monotonic(), **values)
        self.runner_requests.append(entry)
        return entry

    def runner_requests_after(self, seq: int) -> list[dict[str, Any]]:
        """Return the requests to runners that follow entry number `seq`, as JSON values."""
        return [dataclasses.asdict(entry) for entry in self.runner_requests[max(0, seq) :]]


async def finish_response(
    request: web.Request, response: web.StreamResponse, entry: LoggedJob | None
) -> web.StreamResponse:
    """Write a response that is not written yet, and record the time of its last byte."""
    connection = find_connection(request)
    if not response.prepared and request.transport is not None and not request.transport.is_closing():
        await response.prepare(request)
        await response.write_eof()
    if entry is not None:
        entry.sent_at = connection.sent_at if connection is not None and connection.sent_at else time.monotonic()
    return response
