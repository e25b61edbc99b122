"""A model that thinks before it answers: the tester's limit is the tester's, and the next tick asks for more."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from jobtester.simulator.network import Network
from jobtester.simulator.scenario import ByocSpec, GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from jobtester.store.results import ResultRow
from tests.harness.simulated import simulated_tester

LLM, BYOC = "llm", "openai-chat-completions"


def network(tokens: int) -> Scenario:
    """Build two orchestrators, of which one has a model that spends so many tokens on thoughts."""
    nodes = (
        OrchestratorSpec(
            address="0x" + "1" * 40,
            service_uri="https://thinker.sim.example:8935",
            models=(ModelSpec(LLM, "thinker", latency_s=(0.0, 0.01), thinking_tokens=tokens),),
        ),
        OrchestratorSpec(
            address="0x" + "2" * 40,
            service_uri="https://speaker.sim.example:8935",
            models=(ModelSpec(LLM, "speaker", latency_s=(0.0, 0.01)),),
        ),
    )
    return Scenario("thinking", 1, (GatewaySpec("gateway", mode="query"),), nodes)


def token_limit(row: ResultRow) -> int:
    """Return the token limit of a job."""
    return int(json.loads(row.request)["max_tokens"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_thinking_model_passes_in_the_second_tick(stream: bool, tmp_path: Path) -> None:
    """64 tokens end its thoughts: unscored, not posted; then it is asked for 256, and others still for 64."""
    async with simulated_tester(network(100), tmp_path, pipelines={LLM: {"stream": stream}}) as tester:
        first, second = await tester.tick(), await tester.tick()
        rows = {(row.tick, row.model): row for row in await tester.results()}
        ran_out, mended = rows[first.tick, "thinker"], rows[second.tick, "thinker"]
        assert (ran_out.outcome, ran_out.reason, token_limit(ran_out)) == ("unscored", "tester_fault", 64)
        assert "token_limit" in [note["note"] for note in ran_out.notes]
        assert "64 tokens" in ran_out.message
        assert (mended.outcome, mended.reason, token_limit(mended)) == ("passed", "ok", 256)
        assert not mended.notes
        assert [token_limit(rows[report.tick, "speaker"]) for report in (first, second)] == [64, 64]
        assert {rows[report.tick, "speaker"].outcome for report in (first, second)} == {"passed"}
        posted = [stat.stat["model"] for stat in tester.network.leaderboard.rows]
        assert sorted(posted) == ["speaker", "speaker", "thinker"]


async def test_a_model_that_thinks_without_end_is_never_failed(tmp_path: Path) -> None:
    """The limit grows up to its bound, and a model that needs more than that stays unscored."""
    async with simulated_tester(network(10_000), tmp_path) as tester:
        ticks = [(await tester.tick()).tick for _ in range(5)]
        rows = {row.tick: row for row in await tester.results() if row.model == "thinker"}
        assert [token_limit(rows[tick]) for tick in ticks] == [64, 256, 1024, 4096, 4096]
        assert {(rows[tick].outcome, rows[tick].reason) for tick in ticks} == {("unscored", "tester_fault")}


async def test_a_tester_that_is_started_anew_asks_for_more_at_once(tmp_path: Path) -> None:
    """`jobtester run` by a timer is a new process each time: what the store has of earlier ones counts."""
    outcomes = []
    for _ in range(3):
        async with simulated_tester(network(300), tmp_path) as tester:
            tick = (await tester.tick()).tick
            (row,) = [row for row in await tester.results(tick) if row.model == "thinker"]
            outcomes.append((row.outcome, token_limit(row)))
    assert outcomes == [("unscored", 64), ("unscored", 256), ("passed", 1024)]


async def test_the_simulated_runner_counts_its_tokens() -> None:
    """Thoughts first, then the answer, cut wherever the limit comes; no more is counted than was asked for."""
    async with Network(network(10)) as simulated, aiohttp.ClientSession() as session:
        url = f"{simulated.gateways['gateway'].url}/llm?orchestrator=https://thinker.sim.example:8935"
        counts = {}
        for limit in (4, 10, 12, 64):
            body = {
                "model": "thinker", "stream": False, "max_tokens": limit,
                "messages": [{"role": "user", "content": "Tell me something about bears"}],
            }  # fmt: skip
            async with session.post(url, json=body) as response:
                answer = await response.json()
            message, finish = answer["choices"][0]["message"], answer["choices"][0]["finish_reason"]
            thoughts, words = message["reasoning_content"].split(), message["content"].split()
            counts[limit] = (len(thoughts), len(words), finish, answer["usage"]["completion_tokens"])
        assert counts == {4: (4, 0, "length", 4), 10: (10, 0, "length", 10), 12: (10, 2, "length", 12),
                         64: (10, 10, "stop", 21)}  # fmt: skip


async def test_an_external_model_may_think_too(tmp_path: Path) -> None:
    """The same for a BYOC worker, whose first limit is 256 tokens."""
    node = OrchestratorSpec(
        address="0x" + "3" * 40,
        service_uri="https://worker.sim.example:8935",
        byoc=(ByocSpec(BYOC, "e", latency_s=(0.0, 0.01), thinking_tokens=300),),
    )
    scenario = Scenario("thinking", 1, (GatewaySpec("gateway", mode="query"),), (node,))
    async with simulated_tester(scenario, tmp_path) as tester:
        ticks = [(await tester.tick()).tick for _ in range(2)]
        rows = {row.tick: row for row in await tester.results()}
        assert [(rows[tick].outcome, token_limit(rows[tick])) for tick in ticks] == [
            ("unscored", 256),
            ("passed", 1024),
        ]
