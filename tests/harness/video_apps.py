"""A session of a simulated video app, as a client reserves it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jobtester.live_runner.client import LiveRunnerClient
from jobtester.simulator.live_spec import LiveContainerSpec
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, OrchestratorSpec, RunnerSpec, Scenario


@asynccontextmanager
async def video_session(**runner: Any) -> AsyncIterator[tuple[Network, LiveRunnerClient, dict[str, str], str]]:
    """Reserve a session of a video app; yields the channels' URLs and the session's control URL too."""
    specs = (RunnerSpec("x/video", app_kind="video", mode="persistent", latency_s=(0, 0), **runner),)
    live = LiveContainerSpec(fault_after_s=2.0)
    node = OrchestratorSpec("0x" + "a" * 40, service_uri="https://127.0.0.1:0", runners=specs, live=live)
    scenario = Scenario("video", 3, (GatewaySpec("g", mode="stock"),), (node,))
    client = LiveRunnerClient(("127.0.0.0/8",))
    async with Network(scenario) as network:
        await client.open()
        try:
            uri, app = network.orchestrators[0].spec.service_uri, network.service_ports[0].runners[0]
            reply = await _post(client, f"{uri}/apps/{app.url_name}/session")
            urls = await _post(client, f"{reply['app_url']}/echo")
            yield network, client, urls, reply["control_url"]
        finally:
            await client.close()


async def _post(client: LiveRunnerClient, url: str) -> dict[str, str]:
    status, body = await client.post(url, headers={}, timeout_s=5, max_bytes=10_000)
    assert status == 200, body
    values: dict[str, str] = json.loads(body)
    return values
