"""Build what carries the jobs of one tick from its peers to their verdicts, for each way that jobs go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jobtester.checks.checker import AnswerChecker
from jobtester.domain.jobs import PipelineModel
from jobtester.domain.orchestrators import Orchestrator
from jobtester.gateway.connection_probe import ConnectionProbe
from jobtester.gateway.peer import Walk
from jobtester.live_video.stream_api import StreamApi
from jobtester.metrics import Metrics
from jobtester.pipelines.request import Requests
from jobtester.tick.attempt import AttemptTools, JobAttempt, SizeLimits
from jobtester.tick.gateway_attempt import GatewayAttempt
from jobtester.tick.planner import TickPlanner
from jobtester.tick.runner_attempt import RunnerAttempt
from jobtester.tick.video_attempt import VideoAttempt


async def make_attempts(
    planner: TickPlanner, checker: AnswerChecker, metrics: Metrics, *, seed: int
) -> Mapping[Walk, JobAttempt[Any]]:
    """Return what sends and judges the jobs of a tick with this seed; live ways only where they are configured."""
    inputs = planner.inputs
    limits, store = inputs.settings.limits, inputs.settings.store
    catalogue = planner.effective_catalogue()
    tools = AttemptTools(
        catalogue,
        await asyncio.to_thread(Requests, catalogue, inputs.assets, seed),
        checker,
        SizeLimits(limits.max_response, limits.max_artifact, store.max_file_size if store.keep_files else 0),
        planner.token_limits,
        ConnectionProbe(filter(None, (orchestrator.service_uri for orchestrator in planner.orchestrators))),
    )
    attempts: dict[Walk, JobAttempt[Any]] = {Walk.GATEWAY: GatewayAttempt(tools)}
    if inputs.live_runner is not None:
        attempts[Walk.LIVE_RUNNER] = RunnerAttempt(tools, inputs.live_runner, metrics)
    if inputs.live_video is not None:
        apis = {gateway.name: StreamApi(gateway.client) for gateway in inputs.gateways}
        candidates = _count_candidates(planner.orchestrators)
        attempts[Walk.LIVE_VIDEO] = VideoAttempt(tools, inputs.live_video, apis, candidates)
    return attempts


def _count_candidates(orchestrators: Sequence[Orchestrator]) -> Mapping[PipelineModel, int]:
    """Return how many orchestrators offer each model for live video."""
    return Counter(
        PipelineModel(capability.pipeline, capability.model)
        for orchestrator in orchestrators
        for capability in orchestrator.capabilities
        if capability.is_live_video
    )
