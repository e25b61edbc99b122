"""Make up networks for load: as many orchestrators as wanted, a share of them with faults."""

from __future__ import annotations

import random
from collections.abc import Sequence

from jobtester.simulator import faults, go_livepeer
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario, SecondsRange


def generate(  # noqa: PLR0913 - each is a property of the network, and all but two have defaults
    *,
    seed: int,
    orchestrators: int,
    models_per_pipeline: int = 1,
    pipelines: tuple[str, ...] = go_livepeer.BATCH_PIPELINES,
    latency_s: SecondsRange = (0.0, 0.05),
    fault_share: float = 0.0,
    gateways: tuple[GatewaySpec, ...] = (GatewaySpec(name="gateway"),),
    info_s: SecondsRange = (0.0, 0.003),
    fault_probability: float = 0.5,
    local: bool = False,
    fault_names: Sequence[str] = faults.GENERATED,
) -> Scenario:
    """Return a network for load: every orchestrator serves every pipeline, a share of them with one of the faults.

    `local`: the simulator listens at each service URI.
    """
    rng = random.Random(seed)
    models = tuple(
        ModelSpec(pipeline, f"sim/{pipeline}-{number}", latency_s=latency_s)
        for pipeline in pipelines
        for number in range(models_per_pipeline)
    )
    nodes = []
    for number in range(orchestrators):
        is_faulty = rng.random() < fault_share
        nodes.append(
            OrchestratorSpec(
                address=f"0x{rng.getrandbits(160):040x}",
                local_address=f"0x{rng.getrandbits(160):040x}",
                service_uri="https://127.0.0.1:0" if local else f"https://orchestrator-{number}.sim.example:8935",
                models=models,
                info_s=info_s,
                fault=rng.choice(fault_names) if is_faulty else "",
                fault_probability=fault_probability,
            )
        )
    return Scenario(f"generated-{seed}", seed, gateways, tuple(nodes), f"{orchestrators} made-up orchestrators")
