"""What a container reports about a stream: its state by the rates of its frames, its parameters and its errors."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

_LEAST_INPUT_FPS = 15.0
_LEAST_OUTPUT_FPS = 10.0
_LEAST_OUTPUT_SHARE = 0.8
_CLAIMED_FPS = 23.5
_FORCED_STATES = {
    "live_degraded_input": "DEGRADED_INPUT",
    "live_degraded_inference": "DEGRADED_INFERENCE",
    "live_empty_segments": "ONLINE",
    "live_never_loads": "LOADING",
}


class FrameCounter:
    """Frames and when they passed; counted in one thread and read in another."""

    def __init__(self) -> None:
        self.count = 0
        self.last_ms: int | None = None
        self._times: deque[float] = deque(maxlen=4096)

    def add(self, number: int = 1) -> None:
        """Count frames that pass now."""
        self.count += number
        self.last_ms = _now_ms()
        self._times.extend([time.monotonic()] * number)

    def rate(self, window_s: float) -> float:
        """Return the mean rate of the last `window_s` seconds."""
        since = time.monotonic() - window_s
        return sum(moment >= since for moment in tuple(self._times)) / window_s


@dataclass(slots=True)
class ContainerStatus:
    """The status of one stream. `window_s` is the time over which rates are means."""

    fault: str
    window_s: float
    params: dict[str, Any]
    is_loaded: bool = True
    has_failed: bool = False
    updates: int = 0
    started_at: float = field(default_factory=time.monotonic)
    start_ms: int = field(default_factory=lambda: _now_ms())
    updated_ms: int | None = None
    inputs: FrameCounter = field(default_factory=FrameCounter)
    outputs: FrameCounter = field(default_factory=FrameCounter)

    def update_params(self, params: dict[str, Any]) -> None:
        """Take new parameters over, unless the container ignores them."""
        if self.fault == "live_ignores_params":
            return
        self.params, self.updated_ms = params, _now_ms()
        self.updates += 1

    def to_event(self) -> dict[str, Any]:
        """Return the event of this moment."""
        now_ms = _now_ms()
        window_s = max(0.1, min(self.window_s, time.monotonic() - self.started_at))
        input_fps, output_fps = self.inputs.rate(window_s), self.outputs.rate(window_s)
        last_output_ms = self.outputs.last_ms
        state = self._find_state(input_fps, output_fps)
        if self.fault == "live_empty_segments":
            output_fps, last_output_ms = _CLAIMED_FPS, now_ms
        return {
            "type": "status",
            "pipeline": "live-video-to-video",
            "state": state,
            "start_time": self.start_ms,
            "last_state_update_time": now_ms,
            "timestamp": now_ms,
            "input_status": {"fps": round(input_fps, 2), "last_input_time": self.inputs.last_ms},
            "inference_status": {
                "fps": round(output_fps, 2),
                "last_output_time": last_output_ms,
                "last_params": self.params,
                "last_params_hash": hash_params(self.params),
                "last_params_update_time": self.updated_ms,
                "last_error": "Pipeline process exited unexpectedly" if self.has_failed else None,
                "last_error_time": now_ms if self.has_failed else None,
                "last_restart_time": now_ms if self.has_failed else None,
                "last_restart_logs": ["CUDA out of memory"] if self.has_failed else None,
                "restart_count": 3 if self.has_failed else 0,
            },
        }

    def _find_state(self, input_fps: float, output_fps: float) -> str:
        if self.has_failed:
            return "ERROR"
        if self.fault in _FORCED_STATES:
            return _FORCED_STATES[self.fault]
        if not self.is_loaded:
            return "LOADING"
        if not self.inputs.count:
            return "OFFLINE"
        if input_fps < _LEAST_INPUT_FPS:
            return "DEGRADED_INPUT"
        if output_fps < min(_LEAST_OUTPUT_FPS, _LEAST_OUTPUT_SHARE * input_fps):
            return "DEGRADED_INFERENCE"
        return "ONLINE"


def hash_params(params: dict[str, Any]) -> str:
    """Return the hash by which a status names parameters."""
    return hashlib.md5(json.dumps(params, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


def _now_ms() -> int:
    return int(time.time() * 1000)
