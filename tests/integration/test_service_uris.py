"""Service URIs of every form, twice the same, events from strangers: whole ticks, held against the simulator's log."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jobtester.simulator.scenario import ByocSpec, GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.harness.simulated import SimulatedTester, misattributed_results, simulated_tester

URIS = (
    "https://Upper.EXAMPLE:8935", "https://path.example:8935/some/path/", "https://default.example", "https://dot.example.:8935",
    "https://[2001:db8::7]:8935", "https://[2001:DB8:0::8]", "https://user:p%40ss@info.example:8935", "https://bücher.example:8935",
    "bare.example:8935", "http://plain.example:8935", "https://q.example:8935/?a=b&c=d%20e#f", "https://192.0.2.7:8935",
    "https://space.example:8935/a b+c",
)  # fmt: skip
BYOC = ByocSpec("openai-chat-completions", "m", latency_s=(0.0, 0.01))
TIMES = {"retry_window": "100ms", "settle": "30ms", "after_disconnect": "300ms", "first_ask": "30s"}


def node(number: int, uri: str) -> OrchestratorSpec:
    """Make an orchestrator that serves a batch model of its own, whose series it alone moves, and an external one."""
    model = ModelSpec("llm", f"sim/llm-{number}", latency_s=(0.0, 0.01))
    return OrchestratorSpec(f"0x{number:040x}", f"0x{number + 256:040x}", uri, (model,), (BYOC,), info_s=(0.0, 0.001))


def scenario(*gateways: GatewaySpec, uris: tuple[str, ...] = URIS) -> Scenario:
    """Make a network of orchestrators at these service URIs."""
    return Scenario("uris", 5, gateways, tuple(node(number + 1, uri) for number, uri in enumerate(uris)))


async def assert_all_pass(tester: SimulatedTester, *, batch: int, external: int) -> None:
    """Run a tick: every orchestrator is tested for what it serves, passes, and is the one that served."""
    report = await tester.tick()
    results = await tester.results()
    assert report.planned == report.settled == len(results) == batch + external
    assert {(row.outcome, row.reason) for row in results} == {("passed", "ok")}
    assert misattributed_results(results, tester.network) == []
    assert {row.service_uri for row in results} == set(URIS)
    assert {row.attribution for row in results} <= {"proven", "presumed"}
    assert [row.service_uri for row in results if row.attribution != "proven" and row.pipeline == "llm"] == []
    assert len(tester.network.leaderboard.rows) == len(results)


@pytest.mark.parametrize("mode", ["tester", "query"])
@pytest.mark.parametrize("events", [False, True])
async def test_every_form_is_aimed_at_and_proven(mode: Any, events: bool, tmp_path: Path) -> None:
    """Webhook and query targeting, proven by metrics and by events; external capabilities beside them."""
    gateway = GatewaySpec("g", mode=mode, retry_window=0.1, info_timeout=0.6, events=events, event_generation=2)
    gateway_table = {**TIMES, "events": events, "metrics": not events, "evidence_wait": "1s"}
    async with simulated_tester(scenario(gateway), tmp_path, gateways=[gateway_table]) as tester:
        await assert_all_pass(tester, batch=len(URIS), external=len(URIS))


async def test_every_form_is_included_in_the_header_on_a_stock_gateway(tmp_path: Path) -> None:
    """BYOC targeting: the header names the URI as it was advertised, and X-Orchestrator-Url proves it."""
    gateway = GatewaySpec("g", mode="stock")
    async with simulated_tester(scenario(gateway), tmp_path, gateways=[{"targeting": "byoc"}]) as tester:
        tester.network.gateways["g"].webhook_url = None
        await assert_all_pass(tester, batch=0, external=len(URIS))
        assert {row.attribution for row in await tester.results()} == {"proven"}


async def test_what_is_advertised_twice_is_tested_once(tmp_path: Path) -> None:
    """Word for word, in another spelling, without a URI: one job per node, and a reason for what cannot be aimed at."""
    good, again = "https://o.example:8935", "https://O.example:8935/"
    made = scenario(GatewaySpec("g", mode="query"), uris=(good,))
    first = made.orchestrators[0]
    spellings = (again, good, good, "")
    more = tuple(OrchestratorSpec(first.address, first.local_address, uri, first.models) for uri in spellings)
    network = Scenario("twice", 1, made.gateways, (*made.orchestrators, *more))
    async with simulated_tester(network, tmp_path) as tester:
        report = await tester.tick()
        rows = [row for row in await tester.results() if row.pipeline == "llm"]
        assert [(row.service_uri, row.outcome) for row in rows] == [(good, "passed")]
        assert report.skipped == {"no_service_uri": 1}


def completed_event(gateway: str, uri: str, **more: Any) -> dict[str, Any]:
    """Write the event of a job that was just served."""
    data = {
        "type": "ai_batch_request_completed", "request_id": "x", "pipeline": "llm", "model_id": "sim/llm-1",
        "success": True, "tries": 1, "duration_ms": 0, "orch_url": uri, "timestamp": int(time.time() * 1000), **more,
    }  # fmt: skip
    return {"id": "1", "type": "ai_batch_request", "gateway": gateway, "timestamp": "0", "data": data}


STRANGE: list[Any] = [
    "https://never-tested.example:8935", "https://[2001:db8::dead]:1", "https://[::1", "never tested", "", "https://o.example:0",
    "https://" + "x" * 5_000, "\0", None, 7, ["https://o.example:8935"], {"url": "x"},
]  # fmt: skip


async def test_events_from_and_about_strangers_change_nothing(tmp_path: Path) -> None:
    """An orchestrator never tested, a gateway that is not ours, names that are none: all taken, and no score moves."""
    gateway = GatewaySpec("g", mode="query", events=True, event_generation=2)
    gateway_table = {**TIMES, "events": True, "metrics": False, "evidence_wait": "300ms", "event_source": "G-1"}
    async with simulated_tester(scenario(gateway), tmp_path, gateways=[gateway_table]) as tester:
        tester.network.gateways["g"].events_url = None  # no evidence but ours
        await tester.tick()
        before = await tester.results()
        url = f"http://127.0.0.1:{tester.daemon.port}/webhooks/gateway-events"
        async with aiohttp.ClientSession() as session:
            for named in ("g-1", "G-1", "g", "another", "", None, 5, "\0"):
                batch = [completed_event("", uri) | {"gateway": named} for uri in STRANGE]
                infos: list[Any] = [None, 5, [], {"address": 5}]
                batch += [completed_event("", "", orchestrator_info=info) | {"gateway": named} for info in infos]
                async with session.post(url, data=json.dumps(batch)) as response:
                    assert response.status == 204
        counted = tester.daemon.coordinator.metrics.events
        batch_size = len(STRANGE) + 4
        assert counted.labels("used")._value.get() == 2 * batch_size, "the one gateway of ours, in any case"
        assert counted.labels("ignored")._value.get() == 6 * batch_size
        report = await tester.tick()
        assert report.outcomes["passed"] == report.planned
        after = [row for row in await tester.results() if row.tick == before[0].tick]
        assert [(row.id, row.outcome, row.attribution) for row in after] == [
            (row.id, row.outcome, row.attribution) for row in before
        ]
        assert misattributed_results(await tester.results(), tester.network) == []
