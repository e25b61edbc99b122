"""A gateway's /metrics, in go-livepeer's format."""

from __future__ import annotations

import time
from collections import Counter

from jobtester.simulator.live_video.live_metrics import LiveMetrics
from jobtester.simulator.orchestrator import Orchestrator
from jobtester.simulator.scenario import OrchestratorSpec

_NO_ORCHESTRATOR = OrchestratorSpec(address="", version="")


class GatewayMetrics:
    """What a gateway counts about its jobs, lost when the gateway restarts."""

    def __init__(self, gateway: str, version: str) -> None:
        """Start at zero; `version` is the version of go-livepeer that the gateway reports."""
        self._gateway, self._version = gateway, version
        self._started = time.time()
        self._scores: dict[tuple[str, str, str, str, str], float] = {}
        self._errors: Counter[tuple[str, str, str, str, str, str]] = Counter()
        self._requests: Counter[tuple[str, str]] = Counter()
        self.live = LiveMetrics()

    def count_request(self, pipeline: str, model: str) -> None:
        """Count a job that arrived."""
        self._requests[pipeline, model] += 1

    def set_latency_score(self, pipeline: str, model: str, node: Orchestrator, score: float) -> None:
        """Set the orchestrator's latency score."""
        self._scores[*_identity(node.spec), pipeline, model] = score

    def count_error(self, pipeline: str, model: str, node: Orchestrator | None, cause: str) -> None:
        """Count an error, against an orchestrator or with its labels empty."""
        self._errors[cause, *_identity(node.spec if node else _NO_ORCHESTRATOR), pipeline, model] += 1

    def render(self) -> str:
        """Return everything in Prometheus' text format."""
        common = f'node_id="{_escape(self._gateway)}",node_type="bctr"'
        lines = [
            "# HELP go_goroutines Number of goroutines that currently exist.",
            "# TYPE go_goroutines gauge",
            "go_goroutines 87",
            "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.",
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self._started:.11e}",
            "# HELP livepeer_versions Versions used by LivePeer node.",
            "# TYPE livepeer_versions gauge",
            f'livepeer_versions{{goversion="go1.23.2",livepeerversion="{self._version}",{common}}} 1',
            "# HELP livepeer_ai_models_requested AI models requested",
            "# TYPE livepeer_ai_models_requested counter",
        ]
        for (pipeline, model), count in self._requests.items():
            labels = f'model_name="{_escape(model)}",{common},pipeline="{pipeline}"'
            lines.append(f"livepeer_ai_models_requested{{{labels}}} {count}")
        lines += [
            "# HELP livepeer_ai_request_latency_score AI request latency score",
            "# TYPE livepeer_ai_request_latency_score gauge",
        ]
        for (uri, address, version, pipeline, model), score in self._scores.items():
            labels = _labels(uri, address, version, pipeline, model, common)
            lines.append(f"livepeer_ai_request_latency_score{{{labels}}} {score!r}")
        lines += [
            "# HELP livepeer_ai_request_errors Errors during AI request processing",
            "# TYPE livepeer_ai_request_errors counter",
        ]
        for (cause, uri, address, version, pipeline, model), count in self._errors.items():
            labels = f'error_code="{_escape(cause)}",{_labels(uri, address, version, pipeline, model, common)}'
            lines.append(f"livepeer_ai_request_errors{{{labels}}} {count}")
        lines += self.live.render_errors(common) + self.live.render(common)
        return "\n".join(lines) + "\n"


def _labels(uri: str, address: str, version: str, pipeline: str, model: str, common: str) -> str:
    return (
        f'model_name="{_escape(model)}",{common},orchestrator_address="{address}",'
        f'orchestrator_uri="{_escape(uri)}",orchestrator_version="{version}",pipeline="{pipeline}"'
    )


def _identity(spec: OrchestratorSpec) -> tuple[str, str, str]:
    return spec.service_uri, spec.local_address or spec.address, spec.version


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
