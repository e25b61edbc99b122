"""The curl command of a result sends the same request once more, run by curl itself."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import ByocSpec, GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from jobtester.store.queries import Queries, ResultFilters
from tests.harness.live_runners import FakeOrchestrator, answers, chat, config, fake_orchestrators
from tests.harness.recording_relay import recording_relay
from tests.harness.simulated import config_tables, connect_gateways
from tests.harness.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

BATCH = ("text-to-image", "image-to-image", "audio-to-text", "llm", "segment-anything-2")
TOKEN = "a-token-of-the-gateway"
# What curl says of itself, and what nobody minds.
OWN_HEADERS = {"user-agent", "accept", "accept-encoding", "x-request-id", "authorization", "connection"}


def network() -> Scenario:
    """Return one orchestrator with pipelines of JSON and of forms, and an external capability."""
    node = OrchestratorSpec(
        address="0x" + "1" * 40,
        service_uri="https://one.sim.example:8935",
        models=tuple(ModelSpec(pipeline, f"it's/{pipeline}", latency_s=(0.0, 0.01)) for pipeline in BATCH),
        byoc=(ByocSpec("openai-chat-completions", "e", latency_s=(0.0, 0.01)),),
    )
    return Scenario("curl", 1, (GatewaySpec("gateway", mode="query"),), (node,))


async def run_shell(command: str) -> bytes:
    """Run a command as somebody who copied it, and return what it printed."""
    process = await asyncio.create_subprocess_shell(
        f"set -o pipefail; {command}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        executable="/bin/bash",
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )
    printed, problem = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0, (command, problem.decode())
    return printed


async def get_json(url: str) -> dict[str, Any]:
    """Return what a route of the API answers."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200, await response.text()
        document: dict[str, Any] = await response.json()
        return document


async def test_curl_sends_the_same_bytes_through_a_gateway(tmp_path: Path) -> None:
    """For JSON, forms with files, and BYOC: the same line, the same headers, and every byte of the body."""
    async with Network(network()) as simulated:
        gateway = simulated.gateways["gateway"]
        async with recording_relay(gateway.url) as relay:
            tables = config_tables(simulated, tmp_path, gateways=[{"url": relay.url, "token": TOKEN}])
            async with open_daemon(Configuration.from_tables(tables, origin="test")) as daemon:
                connect_gateways(simulated, daemon)
                await daemon.run_once("test")
                rows = await Queries(daemon.database).page(ResultFilters(), limit=100)
                assert {row.pipeline for row in rows} == {*BATCH, "openai-chat-completions"}
                base = f"http://127.0.0.1:{daemon.port}"
                for row in rows:
                    result = await get_json(f"{base}/api/results/{row.id}")
                    sent, command = relay.find(row.id), result["sent"]["curl"]
                    assert sent is not None
                    assert TOKEN not in command
                    await run_shell(command.replace("****", TOKEN))
                    again = await until(lambda: relay.find(f"{row.id}-by-hand"), "the relay has seen all of it")  # noqa: B023
                    assert again.line == sent.line
                    assert again.body == sent.body
                    matter = {name: value for name, value in sent.headers.items() if name not in OWN_HEADERS}
                    assert {name: again.headers.get(name) for name in matter} == matter
                    assert again.headers["authorization"] == sent.headers["authorization"] == f"Bearer {TOKEN}"
                    # Every input is served as it was sent.
                    for file in result["sent"]["inputs"]:
                        async with aiohttp.ClientSession() as session, session.get(base + file["url"]) as response:
                            content = await response.read()
                            assert response.headers["X-Content-Type-Options"] == "nosniff"
                            assert "sandbox" in response.headers["Content-Security-Policy"]
                        assert content in sent.body
                        assert len(content) > 1000


async def test_curl_calls_a_live_runner_again(tmp_path: Path) -> None:
    """Of a live runner the method, the path, the body and the answer are the same, past its self-signed certificate."""
    node = FakeOrchestrator(
        {"hello-world": answers(lambda: web.Response(text="hello")), "openai-chat-completions": chat}
    )
    async with fake_orchestrators(node) as tables, open_daemon(config(tmp_path, tables)) as daemon:
        await asyncio.wait_for(daemon.run_once("test"), TIMEOUT_S)
        rows = await Queries(daemon.database).page(ResultFilters(), limit=100)
        assert len(rows) == 2
        for row in rows:
            result = await get_json(f"http://127.0.0.1:{daemon.port}/api/results/{row.id}")
            before = list(node.requests)
            printed = await run_shell(result["sent"]["curl"])
            assert node.requests[-1] in before
            assert len(node.requests) == len(before) + 1
            assert printed


async def test_the_test_command_of_a_hostile_name_runs_nothing_else(tmp_path: Path) -> None:
    """The copied command that tests a capability again passes its name as one word, whatever is in it."""
    async with (
        Network(network()) as remote,
        open_daemon(Configuration.from_tables(config_tables(remote, tmp_path), origin="test")) as daemon,
    ):
        connect_gateways(remote, daemon)
        await daemon.run_once("test")
        rows = await Queries(daemon.database).page(ResultFilters(pipeline="llm"))
        result = await get_json(f"http://127.0.0.1:{daemon.port}/api/results/{rows[0].id}")
        command = result["test_command"]
        assert command.startswith("jobtester run --no-post --orchestrator 0x1111")
        printed = await run_shell(command.replace("jobtester run", "printf '%s\\n'", 1))
        assert printed.decode().splitlines()[-2:] == ["--model", "it's/llm"]
