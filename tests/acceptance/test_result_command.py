"""`jobtester result` prints what the page of a result shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.acceptance.test_results_and_outbox import run_on_terminal
from tests.harness.simulated import simulated_tester
from tests.harness.waiting import TIMEOUT_S


async def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the command in a folder; return its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobtester", *arguments, cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    printed, problem = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    return process.returncode or 0, printed.decode(), problem.decode()


async def test_a_failure_is_printed_with_everything_behind_it(tmp_path: Path) -> None:
    """Reason, advice, times, words, curl and stat, also on 80 columns; `--json` has the shape of the API."""
    node = OrchestratorSpec(
        f"0x{1:040x}", service_uri="https://o1.sim.example:8935", fault="wrong_transcript",
        models=(ModelSpec("audio-to-text", "sim/speech", latency_s=(0.01, 0.02)),),
    )  # fmt: skip
    scenario = Scenario("result", 1, (GatewaySpec("gateway", mode="query"),), (node,))
    async with simulated_tester(scenario, tmp_path) as tester:
        await tester.tick()
        (row,) = await tester.results()
    (tmp_path / "config.toml").write_text(
        f'region = "FRA"\n[leaderboard]\npost = false\n[store]\npath = "{tmp_path / "jobtester.db"}"\n'
        '[[gateways]]\nname = "g"\nurl = "http://127.0.0.1:1"\n'
    )
    code, printed, problem = await run(tmp_path, "result", row.id)
    assert (code, problem) == (0, "")
    for part in ("check:transcript", "sample rate", "connect", "wait", "missing", "elephants", "delivered", '"region"'):
        assert part in printed, part
    assert f"http://127.0.0.1:7934/r/{row.id}/body |\ncurl --request POST" in printed
    output = await asyncio.to_thread(run_on_terminal, tmp_path, 80, "result", row.id)
    facts = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines() if line.startswith("  ")]
    assert any(line.startswith("  expected  ") for line in facts)
    assert all(len(line.rstrip()) <= 80 for line in facts if not line.startswith(("  --", '  "', "    ")))
    code, printed, _ = await run(tmp_path, "result", row.id, "--json")
    document = json.loads(printed)
    assert document["checks"][0]["problem"] == "words"
    assert document["timing"]["wait_s"] + document["timing"]["transfer_s"] == document["round_trip_s"]
    assert document["timing"]["connect_s"] < 5
    assert document["stat"]["stat"]["round_trip_time"] == document["round_trip_s"]
    code, _, problem = await run(tmp_path, "result", "nothing")
    assert code == 2
    assert "no result is called 'nothing'" in problem
