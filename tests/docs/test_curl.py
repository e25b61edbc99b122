"""The curl lines of the documentation are run as they stand, but for the port, against a tester that has tested."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec
from tests.harness import pages
from tests.harness.simulated import simulated_tester
from tests.harness.waiting import until

_ADDRESS = "http://127.0.0.1:7934"
_TOKEN = "a-token-of-the-test"


def _lines() -> list[str]:
    blocks = [body for page in pages.all_pages() for body in page.blocks("sh", "console", "bash")]
    return [line for body in blocks for line in body.splitlines() if line.startswith("curl ")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_lines_are_answered(tmp_path: Path) -> None:
    """A curl line that is copied gets an answer, and not an error."""
    lines = _lines()
    assert lines, "no page has an example"
    network = generate(
        seed=1, orchestrators=2, models_per_pipeline=1, pipelines=("llm",), latency_s=(0.0, 0.01), fault_share=0.0,
        gateways=(GatewaySpec(name="gateway", mode="query"),),
    )  # fmt: skip
    async with simulated_tester(network, tmp_path, server={"admin_token": _TOKEN}) as tester, tester.serving():
        for line in lines:
            here = line.replace(_ADDRESS, f"http://127.0.0.1:{tester.daemon.port}")
            assert here != line, f"{line}: not about us"
            process = await asyncio.create_subprocess_shell(
                here.replace("curl ", "curl --fail ", 1),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "ADMIN_TOKEN": _TOKEN, "NO_PROXY": "127.0.0.1"},
            )
            answer, _ = await process.communicate()
            assert process.returncode == 0, f"{line}: exit {process.returncode}"
            assert answer, f"{line}: an empty answer"

        async def tick_ended() -> bool:
            tick = await tester.daemon.coordinator.ticks.get("last")
            return tick is not None and tick.finished_at is not None

        await until(tick_ended, "the tick ends that a line has begun", timeout_s=100)
