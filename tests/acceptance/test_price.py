"""What testing costs: exact to the last wei wherever it is shown, and bounded by the budget, in real ticks."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import tomli_w

from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.harness.simulated import config_tables, simulated_tester

ODD = 10**27 + 1  # wei per unit: beyond 64 bits, and no double has it
UNITS = 64  # max_tokens of llm
LLM = "meta-llama/Meta-Llama-3.1-8B-Instruct"


def network(*prices: int, mode: str = "query") -> Scenario:
    """Build orchestrators that each ask one of these prices for a token."""
    nodes = tuple(
        OrchestratorSpec(
            address=f"0x{number + 1:040x}",
            service_uri=f"https://o{number}.sim.example:8935",
            models=(ModelSpec("llm", LLM, price=price, latency_s=(0.0, 0.01)),),
        )
        for number, price in enumerate(prices)
    )
    return Scenario("prices", 1, (GatewaySpec("gateway", mode=mode),), nodes)  # type: ignore[arg-type]


@asynccontextmanager
async def network_with_config(scenario: Scenario, folder: Path, **sections: Any) -> AsyncIterator[Network]:
    """Start a network and write the configuration of a tester that knows it."""
    async with Network(scenario) as remote:
        (folder / "config.toml").write_text(tomli_w.dumps(config_tables(remote, folder, **sections)))
        yield remote


async def run_jobtester(*arguments: str, folder: Path) -> bytes:
    """Run the shipped command and return its stdout."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobtester", *arguments,
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out


async def test_prices_beyond_64_bits_are_exact_wherever_they_are_shown(tmp_path: Path) -> None:
    """`plan`, `run` and `results` print decimal text, as the API does, to the last digit; so do tables for people."""
    right = str(ODD * UNITS)
    async with network_with_config(network(ODD), tmp_path):
        planned = orjson.loads(await run_jobtester("plan", "--json", folder=tmp_path))
        assert planned["estimated_price_wei"] == planned["jobs"][0]["estimated_price_wei"] == right
        shown = (await run_jobtester("plan", folder=tmp_path)).decode()
        assert f"{ODD * UNITS // 10**18}.0000000" in shown
        document = orjson.loads(await run_jobtester("run", "--json", folder=tmp_path))
        assert (
            document["tick"]["report"]["estimated_price_wei"] == document["results"][0]["estimated_price_wei"] == right
        )
        (kept,) = orjson.loads(await run_jobtester("results", "--json", folder=tmp_path))["items"]
        assert kept["estimated_price_wei"] == right
    async with simulated_tester(network(ODD), tmp_path, store={"path": str(tmp_path / "again.db")}) as tester:
        await tester.tick()
        base = f"http://127.0.0.1:{tester.daemon.port}/api"
        async with aiohttp.ClientSession() as session:
            for path, key in (("results", "estimated_price_wei"), ("ticks", "report")):
                async with session.get(f"{base}/{path}") as answer:
                    value = json.loads(await answer.text())["items"][0][key]
                    assert (value if isinstance(value, str) else value["estimated_price_wei"]) == right


async def test_a_price_that_nobody_can_pay_stops_no_tick(tmp_path: Path) -> None:
    """Thousands of digits in one orchestrator's price: it is planned as far too dear, and the others are tested."""
    async with simulated_tester(network(10**4200, 5), tmp_path, budget={"max_price_per_job": "1 ETH"}) as tester:
        report = await tester.tick()
        assert (report.state, report.settled, dict(report.skipped)) == ("finished", 1, {"price": 1})


async def test_the_budget_of_a_day_is_spent_once_and_on_what_is_not_known_yet(tmp_path: Path) -> None:
    """Of three equal jobs a day pays two: the first tick sends two, the second none; a larger day pays the third."""
    budget = {"per_day": f"{2 * 1000 * UNITS} wei", "per_tick": "1 ETH"}
    late_s = max(0.0, time.time() % 86_400 - 85_000)  # by which a clock is put back, so that it stays the same day

    def clock() -> float:
        return time.time() - late_s

    async with simulated_tester(network(1000, 1000, 1000), tmp_path, budget=budget) as tester:
        tester.daemon.coordinator.planner.clock = clock
        first = await tester.tick()
        assert (first.settled, first.skipped["budget"], first.price_wei) == (2, 1, 2 * 1000 * UNITS)
        second = await tester.tick()
        assert (second.settled, second.skipped["budget"], second.price_wei) == (0, 3, 0)
        tested = {row.orchestrator for row in await tester.results()}
    async with simulated_tester(
        network(1000, 1000, 1000), tmp_path, budget={"per_day": f"{3 * 1000 * UNITS} wei"}
    ) as tester:
        tester.daemon.coordinator.planner.clock = clock
        third = await tester.tick()
        assert (third.settled, third.skipped["budget"]) == (1, 2)
        (row,) = await tester.results(third.tick)
        assert row.orchestrator not in tested


@pytest.mark.parametrize(("max_price", "sent"), [("63999 wei", 0), ("64000 wei", 1), ("0.000000000000064 ETH", 1)])
async def test_a_job_above_the_price_limit_is_skipped(max_price: str, sent: int, tmp_path: Path) -> None:
    """To the wei, however the bound is written; the skipped one is in the report with its reason."""
    async with simulated_tester(network(1000), tmp_path, budget={"max_price_per_job": max_price}) as tester:
        report = await tester.tick()
        assert (report.settled, report.skipped["price"]) == (sent, 1 - sent)
