"""A runner at run time: its health, its slots, and the sessions that keep them."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from jobtester.simulator import faults
from jobtester.simulator.live_runner import errors
from jobtester.simulator.live_runner.errors import RequestRefusedError
from jobtester.simulator.live_runner.payment import PaymentMeter
from jobtester.simulator.scenario import OrchestratorSpec, RunnerSpec

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_HIDDEN = ("runner_unhealthy",)
_NOT_FOUND = ("runner_unhealthy", "runner_gone")


@dataclass(slots=True)
class Session:
    """A reserved session of a persistent runner. `meter` is None if it is free of charge.

    `end_callbacks` are called when it ends, for whatever reason.
    """

    session_id: str
    token: str
    proxy_key: str
    calls: int = 0
    meter: PaymentMeter | None = None
    end_callbacks: list[Callable[[], None]] = field(default_factory=list)


class LiveRunner:
    """One runner. A session that nobody stops keeps its slot until the runner is unhealthy or restarted."""

    def __init__(self, spec: RunnerSpec, seed: str) -> None:
        self.spec = spec
        self._random = random.Random(seed)
        self.runner_id = f"runner_{self._random.getrandbits(32):08x}"
        self.sessions: dict[str, Session] = {}
        self.meters: dict[str, PaymentMeter] = {}
        self.session_counts = dict.fromkeys(("opened", "stopped", "lost", "lapsed"), 0)
        self.in_flight = 0
        self._known_session_ids: set[str] = set()
        self._is_healthy = True
        self._started_at = time.monotonic()
        self._gaps_seen = 0

    @property
    def url_name(self) -> str:
        """The part of its URLs that names it."""
        return self.spec.app.replace("/", "-") if self.spec.path_kind == "label" else self.runner_id

    @property
    def slots_in_use(self) -> int:
        """Slots that requests and sessions keep now."""
        return self.in_flight + len(self.sessions)

    def describe(self) -> dict[str, Any]:
        """Return its state as JSON values."""
        return {
            "runner_id": self.runner_id,
            "app": self.spec.app,
            "version": self.spec.version,
            "mode": self.spec.mode,
            "fault": self.spec.fault,
            "healthy": self.is_healthy(),
            "capacity": self.spec.capacity,
            "in_flight": self.in_flight,
            "open_sessions": list(self.sessions),
            "sessions": dict(self.session_counts),
        }

    def change(self, **changes: Any) -> None:
        """Change fields of its specification. TypeError for an unknown field, ValueError for an unknown fault."""
        self.spec = dataclasses.replace(self.spec, **changes)

    def set_healthy(self, is_healthy: bool) -> None:
        """Pass or fail the health check from now on. A failed one loses all sessions."""
        self._is_healthy = is_healthy
        if not is_healthy:
            self.lose_sessions()

    def is_healthy(self) -> bool:
        """Return whether the health check passes now; lose the sessions if it failed since the last look."""
        healthy_s, gap_s = self.spec.health_gap
        if gap_s <= 0:
            return self._is_healthy
        elapsed_s = time.monotonic() - self._started_at
        full_periods, rest_s = divmod(elapsed_s, healthy_s + gap_s)
        is_in_gap = rest_s >= healthy_s
        gaps = int(full_periods) + is_in_gap
        if gaps != self._gaps_seen:
            self._gaps_seen = gaps
            self.lose_sessions()
        return self._is_healthy and not is_in_gap

    def lose_sessions(self) -> None:
        """End every session without anybody having stopped it."""
        for session_id in list(self.sessions):
            self._end_session(session_id, "lost")

    def is_listed(self, node: OrchestratorSpec) -> bool:
        """Return whether discovery shows it."""
        return self.is_healthy() and self.constant_fault(node) not in _HIDDEN

    def require_found(self, node: OrchestratorSpec) -> None:
        """Raise RequestRefusedError if the orchestrator does not know it at the moment."""
        if not self.is_healthy() or self.constant_fault(node) in _NOT_FOUND:
            raise RequestRefusedError(404, errors.RUNNER_NOT_FOUND)

    def constant_fault(self, node: OrchestratorSpec) -> str:
        """Return its fault, or that of the whole orchestrator, whatever its probability is."""
        if self.spec.fault:
            return self.spec.fault
        applies = not node.fault_pipelines or self.spec.app in node.fault_pipelines
        return node.fault if node.fault in faults.RUNNER and applies else ""

    def draw_fault(self, node: OrchestratorSpec) -> str:
        """Draw whether a request meets the fault, and return it, empty for none."""
        probability = self.spec.fault_probability if self.spec.fault else node.fault_probability
        return self.constant_fault(node) if self._random.random() < probability else ""

    def draw_latency(self) -> float:
        """Draw how many seconds the app takes for a request."""
        return self._random.uniform(*self.spec.latency_s)

    def require_slot(self, fault: str) -> None:
        """Raise RequestRefusedError if no slot is free."""
        self.is_healthy()
        if fault == "runner_busy" or self.slots_in_use >= self.spec.capacity:
            raise RequestRefusedError(503, errors.NO_CAPACITY)

    @contextmanager
    def occupy_slot(self) -> Iterator[None]:
        """Keep a slot for the time of one request."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def create_session_id(self) -> str:
        """Return the id of a session that may be opened later."""
        return f"session_{self._random.getrandbits(32):08x}"

    def open_session(self, session_id: str) -> Session:
        """Take a slot for a session."""
        proxy_key = "".join(self._random.choices(_LETTERS, k=26))
        session = Session(session_id, f"{self._random.getrandbits(128):032x}", proxy_key)
        self.sessions[session_id] = session
        self._known_session_ids.add(session_id)
        self.session_counts["opened"] += 1
        return session

    def find_session(self, session_id: str) -> Session:
        """Return an open session. RequestRefusedError if it has ended or never was."""
        self.is_healthy()
        session = self.sessions.get(session_id)
        if session is None:
            raise RequestRefusedError(404, errors.SESSION_NOT_FOUND)
        return session

    def stop_session(self, session_id: str) -> None:
        """End a session, which may have ended already. RequestRefusedError if it never was."""
        if session_id not in self._known_session_ids:
            raise RequestRefusedError(404, errors.SESSION_NOT_FOUND)
        self._end_session(session_id, "stopped")

    def attach_meter(self, session: Session, meter: PaymentMeter) -> None:
        """Make the session's life depend on its payments."""
        session.meter = meter
        self.meters[session.session_id] = meter

    def end_lapsed_session(self, session_id: str) -> None:
        """End a session whose payments have stopped."""
        self._end_session(session_id, "lapsed")

    def _end_session(self, session_id: str, reason: Literal["stopped", "lost", "lapsed"]) -> None:
        session = self.sessions.pop(session_id, None)
        meter = self.meters.pop(session_id, None)
        if meter is not None:
            meter.stop()
        if session is not None:
            self.session_counts[reason] += 1
            for callback in session.end_callbacks:
                callback()
