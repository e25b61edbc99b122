"""What live video adds to gateways and orchestrators of a scenario: addresses and times, by default as measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T", "LiveGatewaySpec", "LiveContainerSpec")


@dataclass(frozen=True, slots=True)
class LiveGatewaySpec:
    """How a gateway handles live video; times in seconds.

    `callback_port` is where it calls the client back as it would call MediaMTX, with `callback_password`.
    `matroska_probe_s`, `other_probe_s`: how long its ffmpeg looks at an input before it passes anything on.
    `input_retry_s`: how long it waits before it reads an input again. `output_probe_s`: how long ffmpeg looks at each
    output before it sends it, `output_start_s`: how much longer that was measured to take at the start of a job, for an
    unknown reason. `output_retry_s`: when it sends an output again. `events_timeout_s`, `segments_timeout_s`: how
    long it waits for a container's events and output before it starts the stream again, at most `max_swaps` times in
    `swap_window_s`. `broken_s`: from the loss of an orchestrator to the next try. `status_life_s`: how long a status
    outlives its job. `pool_refresh_s`: how often the orchestrators that failed come back, by the gateway's own clock.
    """

    callback_port: int = 9997
    callback_password: str = "password"  # noqa: S105 - the default of go-livepeer
    matroska_probe_s: float = 0.46
    other_probe_s: float = 5.2
    input_retry_s: float = 0.5
    output_probe_s: float = 2.5
    output_start_s: float = 2.1
    output_retry_s: float = 5.0
    events_timeout_s: float = 30.0
    segments_timeout_s: float = 30.0
    swap_window_s: float = 180.0
    max_swaps: int = 2
    broken_s: float = 1.4
    status_life_s: float = 60.0
    pool_refresh_s: float = 360.0

    def scale_times(self, factor: float) -> LiveGatewaySpec:
        """Return the same with all its times multiplied."""
        return _scale(self, factor)


@dataclass(frozen=True, slots=True)
class LiveContainerSpec:
    """How the container behind an orchestrator's live models behaves; times in seconds.

    `event_interval_s`: how often it reports its status. `fault_after_s`: when a fault begins that has a time.
    `slow_fps`: the rate of its output with the fault `live_slow`.
    """

    event_interval_s: float = 10.0
    fault_after_s: float = 8.0
    slow_fps: float = 4.0

    def scale_times(self, factor: float) -> LiveContainerSpec:
        """Return the same with all its times multiplied; the frame rate stays."""
        return _scale(self, factor)


def _scale(spec: T, factor: float) -> T:
    times = [field.name for field in dataclasses.fields(spec) if field.name.endswith("_s")]
    return dataclasses.replace(spec, **{name: getattr(spec, name) * factor for name in times})
