"""Stream status: what a gateway reported about one live video stream, poll by poll, with a summary."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Self

import orjson

from jobtester.domain.orchestrators import parse_endpoint
from jobtester.domain.untrusted_text import clean_address, clean_label, clean_name

NOBODY_AVAILABLE = "no orchestrators available"
DEGRADED_INPUT = "DEGRADED_INPUT"
ERROR = "ERROR"
STATE_WORDS = {
    "LOADING": "it loads the model",
    "OFFLINE": "it does not run",
    "ONLINE": "it runs",
    DEGRADED_INPUT: "it receives fewer than 15 frames per second",
    "DEGRADED_INFERENCE": "it returns too few frames",
    ERROR: "it has failed",
}
_MAX_CHANGES = 100  # of states and of orchestrators; a stream has a handful
_MAX_MESSAGE_CHARS = 300
# What the gateway calls an error at the regular end of an input, and one that comes in good streams too.
_HARMLESS_ERRORS = ("whip disconnected", "mediamtx ingest disconnected", "next segment has started")


class UnusableStatusError(ValueError):
    """The gateway's answer is not a stream's status."""


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One answer of a gateway's status route; what is missing there is empty or None here.

    `runner_started_ms` and `error_at_ms` are the sender's own Unix milliseconds: good for comparison only.
    `has_runner_event` is False as long as only the gateway has reported something.
    """

    has_runner_event: bool = False
    state: str = ""
    orchestrator_url: str = ""
    orchestrator_address: str = ""
    request_id: str = ""
    runner_started_ms: int | None = None
    restarts: int = 0
    inference_fps: float | None = None
    params_hash: str = ""
    runner_error: str = ""
    gateway_error: str = ""

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read an answer, which may hold anything. Raises UnusableStatusError where it is no JSON object."""
        try:
            values = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise UnusableStatusError("the status is not JSON") from error
        if not isinstance(values, dict):
            raise UnusableStatusError("the status is not an object")
        orchestrator, gateway = _table(values, "orchestrator_info"), _table(values, "gateway_status")
        inference = _table(values, "inference_status")
        state = values.get("state")
        return cls(
            has_runner_event="state" in values or "inference_status" in values,
            state=state if isinstance(state, str) and state in STATE_WORDS else clean_name(state)[:40],
            orchestrator_url=clean_name(orchestrator.get("url")),
            orchestrator_address=clean_address(orchestrator.get("address")),
            request_id=clean_name(values.get("request_id"))[:100],
            runner_started_ms=_whole(values.get("start_time")),
            restarts=_whole(inference.get("restart_count")) or 0,
            inference_fps=_number(inference.get("fps")),
            params_hash=clean_name(inference.get("last_params_hash"))[:64],
            runner_error=_message(inference.get("last_error")),
            gateway_error=_message(_table(gateway, "error").get("error_message")),
        )

    @property
    def has_found_nobody(self) -> bool:
        """Return True if the gateway reports that it found no orchestrator."""
        return NOBODY_AVAILABLE in self.gateway_error.lower()


@dataclass(frozen=True, slots=True)
class StreamTrace:
    """What a whole stream's statuses add up to; seconds count from the call that started the stream.

    `orchestrator_urls` are all that were named, in their order, each change once. `ready_s` is when the first event of
    a runner was seen, `found_nobody_s` when the gateway first reported that it found no orchestrator, `applied_s` when
    the hash of the changed parameters was first reported. `unknown_s` is how long the gateway has known nothing of the
    stream, at its beginning. `is_known` means that it has shown a status of the stream, which may name nobody yet;
    `is_forgotten` that it knew the stream and then no longer did.
    """

    orchestrator_urls: tuple[str, ...] = ()
    states: tuple[tuple[float, str], ...] = ()
    request_ids: tuple[str, ...] = ()
    ready_s: float | None = None
    found_nobody_s: float | None = None
    applied_s: float | None = None
    unknown_s: float = 0.0
    is_known: bool = False
    is_forgotten: bool = False
    runner_starts: int = 0
    restarts: int = 0
    inference_fps: float | None = None
    runner_error: str = ""
    gateway_errors: tuple[str, ...] = ()
    _runner_started_ms: int | None = field(default=None, repr=False)

    def add(self, status: StreamStatus, at_s: float, *, awaited_hashes: Collection[str] = ()) -> StreamTrace:
        """Return the trace with one more status, seen at `at_s`."""
        trace = replace(self, is_known=True)
        if status.orchestrator_url:
            trace = replace(trace, orchestrator_urls=_appended(trace.orchestrator_urls, status.orchestrator_url))
        if status.request_id:
            trace = replace(trace, request_ids=_appended(trace.request_ids, status.request_id))
        error = status.gateway_error
        if error and not error.lower().startswith(_HARMLESS_ERRORS):
            trace = replace(trace, gateway_errors=_appended(trace.gateway_errors, error))
        if status.has_found_nobody and trace.found_nobody_s is None:
            trace = replace(trace, found_nobody_s=at_s)
        return trace._with_event(status, at_s, awaited_hashes) if status.has_runner_event else trace

    def add_unknown(self, at_s: float, *, is_taken: bool = False) -> StreamTrace:
        """Return the trace after an answer that is no status of the stream.

        `is_taken` means that the gateway surely had the stream before, whether or not it showed a status.
        """
        return replace(self, is_forgotten=True) if self.is_known or is_taken else replace(self, unknown_s=at_s)

    @property
    def swaps(self) -> int:
        """Return how often the stream was passed to a runner again: to another orchestrator, or restarted."""
        return max(0, len(self.orchestrator_urls) - 1, self.runner_starts - 1)

    @property
    def last_state(self) -> str:
        """Return the state that was last reported, empty if none was."""
        return self.states[-1][1] if self.states else ""

    def was_served_by(self, service_uri: str) -> bool | None:
        """Return whether this orchestrator alone was named; None where nobody was."""
        if not self.orchestrator_urls:
            return None
        target = _normalize(service_uri)
        return all(_normalize(url) == target for url in self.orchestrator_urls)

    def _with_event(self, status: StreamStatus, at_s: float, awaited_hashes: Collection[str]) -> StreamTrace:
        has_changed = status.state != self.last_state and len(self.states) < _MAX_CHANGES
        has_started = status.runner_started_ms is not None and status.runner_started_ms != self._runner_started_ms
        is_applied = status.params_hash in awaited_hashes
        return replace(
            self,
            ready_s=at_s if self.ready_s is None else self.ready_s,
            states=(*self.states, (at_s, status.state)) if status.state and has_changed else self.states,
            runner_starts=self.runner_starts + has_started,
            _runner_started_ms=status.runner_started_ms if has_started else self._runner_started_ms,
            restarts=max(self.restarts, status.restarts),
            inference_fps=self.inference_fps if status.inference_fps is None else status.inference_fps,
            runner_error=status.runner_error or self.runner_error,
            applied_s=at_s if is_applied and self.applied_s is None else self.applied_s,
        )


def _appended(values: tuple[str, ...], value: str) -> tuple[str, ...]:
    is_new = not values or values[-1] != value
    return (*values, value) if is_new and len(values) < _MAX_CHANGES else values


def _normalize(url: str) -> tuple[str, tuple[str, int] | None]:
    # The whole URL counts, not a part of it: port 893 is no port 8935.
    scheme, separator, _ = url.strip().lower().partition("://")
    return (scheme if separator else "https"), parse_endpoint(url)


def _table(values: dict[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= 1e6 else None


def _message(value: object) -> str:
    return clean_label(value[:_MAX_MESSAGE_CHARS]) if isinstance(value, str) else ""
