"""Jobs: one orchestrator × pipeline × model, tested once in a tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jobtester.domain.orchestrators import Capability, Orchestrator, Target


class Pair(NamedTuple):
    """One (pipeline, model): what gateways name in their metrics and events."""

    pipeline: str
    model: str


@dataclass(frozen=True, slots=True)
class Job:
    """One orchestrator × pipeline × model to be tested once in a tick.

    `id` is unique for ever and travels as X-Request-ID. `pipeline` is the slug (for BYOC the capability's name),
    `pipeline_name` what the Leaderboard gets. `timeout_s` > 0 seconds from handing the request over to the last byte
    of the answer. `price_wei` is the estimate, None where unknown. `expected_s` is how long it probably takes.
    """

    id: str
    tick: str
    orchestrator: Orchestrator
    capability: Capability
    pipeline_name: str
    timeout_s: float
    expected_s: float
    price_wei: int | None = None

    @property
    def target(self) -> Target:
        """Give whom the job is aimed at."""
        return self.orchestrator.target

    @property
    def pipeline(self) -> str:
        """Give the pipeline's slug."""
        return self.capability.pipeline

    @property
    def model(self) -> str:
        """Give the model's id, exactly as advertised."""
        return self.capability.model

    @property
    def pair(self) -> Pair:
        """Give the (pipeline, model) under which the gateway speaks of the job."""
        return Pair(self.capability.pipeline, self.capability.model)

    @property
    def warm(self) -> bool:
        """Tell whether the model is advertised as loaded; unknown counts as cold."""
        return bool(self.capability.warm)
