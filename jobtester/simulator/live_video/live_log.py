"""The simulator's own record of live video: who served a job, which frames passed, and when, on the monotonic clock."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class LoggedSession:
    """One start of a job on an orchestrator. `outcome` is why it ended, empty while it runs.

    `frames_in` and `frames_out` are those that the container read and wrote. `first_segment_delay_s` is what the
    gateway's metrics count: from its start call to the end of the first segment of the output, None if there was none.
    """

    address: str
    service_uri: str
    manifest_id: str
    fault: str
    started_at: float
    ended_at: float | None = None
    outcome: str = ""
    frames_in: int = 0
    frames_out: int = 0
    first_frame_in_at: float | None = None
    first_frame_out_at: float | None = None
    first_segment_delay_s: float | None = None


@dataclass(slots=True)
class LoggedOutput:
    """One connection by which the gateway sent its output. `status` is None if there was no response.

    `first_frame_at` is when the bytes of the first frame were handed to the socket. `frames` counts all of them.
    """

    url: str
    opened_at: float
    first_frame_at: float | None = None
    ended_at: float | None = None
    status: int | None = None
    frames: int = 0


@dataclass(slots=True)
class LoggedLiveJob:
    """One job of live video as a gateway saw it.

    `received_at` is when /start had arrived, `answered_at` when its response was ready. `tries` counts the sessions
    that the first selection looked at. `frames` counts those that the gateway read from the client. `error` is the
    first one of the status; `log_errors` are those that a gateway writes into its log only.
    """

    seq: int
    gateway: str
    stream: str
    stream_id: str
    request_id: str
    pin: str
    model: str
    received_at: float
    answered_at: float | None = None
    ended_at: float | None = None
    tries: int = 0
    swaps: int = 0
    frames: int = 0
    first_frame_at: float | None = None
    kicked: bool = False
    error: str = ""
    log_errors: list[str] = field(default_factory=list)
    sessions: list[LoggedSession] = field(default_factory=list)
    outputs: list[LoggedOutput] = field(default_factory=list)

    def count_frame(self) -> None:
        """Count a frame that the gateway read from the client."""
        self.frames += 1
        if self.first_frame_at is None:
            self.first_frame_at = time.monotonic()


class LiveLog:
    """All jobs of live video, in the order in which they began."""

    def __init__(self) -> None:
        self.jobs: list[LoggedLiveJob] = []
        self.sessions: list[LoggedSession] = []

    def add_job(self, **values: Any) -> LoggedLiveJob:
        """Append a job that begins."""
        self.jobs.append(LoggedLiveJob(seq=len(self.jobs) + 1, **values))
        return self.jobs[-1]

    def add_session(self, **values: Any) -> LoggedSession:
        """Append the session of a job that an orchestrator accepts now."""
        self.sessions.append(LoggedSession(started_at=time.monotonic(), **values))
        return self.sessions[-1]

    def find_session(self, manifest_id: str) -> LoggedSession | None:
        """Return the session of a manifest id."""
        return next((session for session in self.sessions if session.manifest_id == manifest_id), None)

    def jobs_after(self, seq: int) -> list[dict[str, Any]]:
        """Return the jobs that follow job number `seq`, as JSON values."""
        return [dataclasses.asdict(job) for job in self.jobs[max(0, seq) :]]
