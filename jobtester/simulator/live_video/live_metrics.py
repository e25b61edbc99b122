"""What a gateway's /metrics show about live video."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

from jobtester.simulator.faults import LIVE_PIPELINE
from jobtester.simulator.orchestrator import Orchestrator

NO_ORCHESTRATORS = "no orchestrators available"


class LiveMetrics:
    """Counters of streams, lost when the gateway restarts."""

    def __init__(self) -> None:
        self.count_available: Callable[[], int] = lambda: 0
        self._attempts: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._unserved: Counter[str] = Counter()
        self._delays_ms: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)

    def count_attempt(self, model: str) -> None:
        """Count a stream that was started."""
        self._attempts[model] += 1

    def count_unserved(self, model: str) -> None:
        """Count a stream for which no orchestrator was found."""
        self._unserved[model] += 1

    def change_running(self, model: str, change: int) -> None:
        """Count a stream that begins to run (1) or has ended (-1)."""
        self._running[model] += change

    def add_first_segment_delay(self, node: Orchestrator, delay_s: float) -> None:
        """Add the time from the start call to the end of the first segment of the output."""
        identity = (node.spec.service_uri, node.spec.local_address or node.spec.address, node.spec.version)
        self._delays_ms[identity].append(delay_s * 1000)

    def render(self, common: str) -> list[str]:
        """Return the lines of all series in Prometheus' text format; `common` holds the gateway's own labels."""
        lines = [
            "# HELP livepeer_ai_live_attempt AI live video attempts",
            "# TYPE livepeer_ai_live_attempt counter",
            *(f'livepeer_ai_live_attempt{{model_name="{model}",{common}}} {n}' for model, n in self._attempts.items()),
            "# HELP livepeer_ai_current_live_pipelines Number of live video pipelines currently running",
            "# TYPE livepeer_ai_current_live_pipelines gauge",
            *(
                f'livepeer_ai_current_live_pipelines{{{common},pipeline="{model}"}} {n}'
                for model, n in self._running.items()
            ),
            "# HELP livepeer_ai_orchestrators_available_total Number of orchestrators available",
            "# TYPE livepeer_ai_orchestrators_available_total gauge",
            f"livepeer_ai_orchestrators_available_total{{{common}}} {self.count_available()}",
            "# HELP livepeer_ai_first_segment_delay_ms Delay of the first live video segment",
            "# TYPE livepeer_ai_first_segment_delay_ms histogram",
        ]
        for (uri, address, version), delays in self._delays_ms.items():
            labels = (
                f'{common},orchestrator_address="{address}",orchestrator_uri="{uri}",orchestrator_version="{version}"'
            )
            lines.append(f"livepeer_ai_first_segment_delay_ms_sum{{{labels}}} {sum(delays):.3f}")
            lines.append(f"livepeer_ai_first_segment_delay_ms_count{{{labels}}} {len(delays)}")
        return lines

    def render_errors(self, common: str) -> list[str]:
        """Return the lines that belong to the counter of failed requests."""
        return [
            f'livepeer_ai_request_errors{{error_code="{NO_ORCHESTRATORS}",model_name="{model}",{common},'
            f'orchestrator_address="",orchestrator_uri="",orchestrator_version="",pipeline="{LIVE_PIPELINE}"}} {count}'
            for model, count in self._unserved.items()
        ]
