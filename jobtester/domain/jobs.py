"""Jobs: one orchestrator × pipeline × model, tested once in a tick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from jobtester.domain.orchestrators import Capability, CapabilityKey, Orchestrator, Target


class PipelineModel(NamedTuple):
    """One (pipeline, model): what gateways name in their metrics and events."""

    pipeline: str
    model: str


@dataclass(frozen=True, slots=True)
class Job:
    """One orchestrator × pipeline × model to be tested once in a tick.

    `id` is unique for ever and travels as X-Request-ID. `pipeline` is the slug (for BYOC the capability's name),
    `pipeline_name` what the Leaderboard gets. `timeout_s` > 0 seconds from handing the request over to the last byte
    of the answer. `price_wei` is the estimate, None where unknown. `expected_s` is how long it probably takes.
    `pair` is under what the gateway speaks of the job, `target` whom it is aimed at.
    """

    id: str
    tick: str
    orchestrator: Orchestrator
    capability: Capability
    pipeline_name: str
    timeout_s: float
    expected_s: float
    price_wei: int | None = None
    pipeline_model: PipelineModel = field(init=False, repr=False, compare=False)
    target: Target = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make once what is asked for all the time."""
        object.__setattr__(self, "pipeline_model", PipelineModel(self.capability.pipeline, self.capability.model))
        object.__setattr__(self, "target", self.orchestrator.target)

    @property
    def pipeline(self) -> str:
        """Give the pipeline's slug."""
        return self.capability.pipeline

    @property
    def model(self) -> str:
        """Give the model's id, exactly as advertised."""
        return self.capability.model

    @property
    def key(self) -> CapabilityKey:
        """Return what the job tests, the same in every tick."""
        return CapabilityKey(*self.target, *self.pipeline_model)

    @property
    def warm(self) -> bool:
        """Tell whether the model is advertised as loaded; unknown counts as cold."""
        return bool(self.capability.warm)
