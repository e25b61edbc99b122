"""Jobs: what is tested in a tick, each on one orchestrator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from jobtester.domain.orchestrators import Capability, CapabilityKey, Orchestrator, Target


class PipelineModel(NamedTuple):
    """One (pipeline, model), by which gateways label their metrics and events."""

    pipeline: str
    model: str


@dataclass(frozen=True, slots=True)
class Job:
    """One orchestrator × pipeline × model to be tested once in a tick.

    `id` is unique for ever and travels as X-Request-ID. `pipeline` is the slug (for BYOC the capability's name),
    `pipeline_name` what the Leaderboard gets. `timeout_s` > 0 runs from handing the request to the socket to the last
    byte of the answer. `price_wei` is the estimate, None where unknown. `expected_s` is the probable duration.
    `definition` names the pipeline's table, which for apps of live runners is not the app's name. `is_video` means that
    the job is a video stream.
    `pipeline_model` is how the gateway's metrics and events name the job, `target` where the gateway sends it.
    """

    id: str
    tick: str
    orchestrator: Orchestrator
    capability: Capability
    pipeline_name: str
    timeout_s: float
    expected_s: float
    price_wei: int | None = None
    definition: str = ""
    is_video: bool = False
    pipeline_model: PipelineModel = field(init=False, repr=False, compare=False)
    target: Target = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The job queue compares these for every waiting job, so they are made once.
        object.__setattr__(self, "pipeline_model", PipelineModel(self.capability.pipeline, self.capability.model))
        object.__setattr__(self, "target", self.orchestrator.target)
        if not self.definition:
            object.__setattr__(self, "definition", self.capability.pipeline)

    @property
    def pipeline(self) -> str:
        """Return the pipeline's slug."""
        return self.capability.pipeline

    @property
    def model(self) -> str:
        """Return the model's id, exactly as advertised."""
        return self.capability.model

    @property
    def key(self) -> CapabilityKey:
        """Return what the job tests, the same in every tick."""
        return CapabilityKey(*self.target, *self.pipeline_model, self.capability.kind)

    @property
    def warm(self) -> bool:
        """Return True if the model is advertised as loaded; unknown counts as cold."""
        return bool(self.capability.warm)
