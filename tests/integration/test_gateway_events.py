"""Whatever a gateway's event sink, or anybody else, posts: a defined response, never a crash, never a long wait."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobtester.gateway.gateway_events import parse_events
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.harness.simulated import SimulatedTester, misattributed_results, simulated_tester
from tests.harness.waiting import until

SCENARIO = generate(
    seed=4,
    orchestrators=3,
    pipelines=("llm",),
    gateways=(GatewaySpec("g", mode="query", events=True), GatewaySpec("h", mode="query", events=True)),
)
GATEWAYS = [{"events": True, "evidence_wait": "300ms"}] * 2
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def completed_event(gateway: str, **more: Any) -> dict[str, Any]:
    """Return the event of a finished job, as a new gateway sends it."""
    data = {
        "type": "ai_batch_request_completed", "request_id": "x", "pipeline": "llm", "model_id": "sim/llm-0",
        "success": False, "tries": 1, "duration_ms": 40, "orch_url": "https://nobody.example:8935",
        "error_type": "orchestrator_error", "error": "made up", **more,
    }  # fmt: skip
    return {"id": "1", "type": "ai_batch_request", "gateway": gateway, "timestamp": str(int(time.time() * 1000)),
            "data": data}  # fmt: skip


def one_model_each(count: int) -> tuple[OrchestratorSpec, ...]:
    """Return orchestrators with a model of their own each, so that no two jobs share one."""
    return tuple(
        OrchestratorSpec(f"0x{at + 1:040x}", service_uri=f"https://o{at}.example:8935",
                         models=(ModelSpec("llm", f"m{at}", latency_s=(1.0, 1.0)),))
        for at in range(count)
    )  # fmt: skip


async def post(tester: SimulatedTester, body: bytes, **headers: str) -> int:
    """Post to the webhook and return the status."""
    url = f"http://127.0.0.1:{tester.daemon.port}/webhooks/gateway-events"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=io.BytesIO(body), headers=headers) as response,
    ):
        await response.read()
        return response.status


async def event_count(tester: SimulatedTester, label: str) -> float:
    """Return how many events were counted under a label."""
    return float(tester.daemon.coordinator.metrics.events.labels(label)._value.get())


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b"[[[[]]]]", b"not json", b"\xff\xfe", b'"text"', b"[1, null, {}]",
        b'{"type": 1, "data": []}', b'[{"gateway": {}, "data": {"type": "ai_batch_request_completed"}}]',
        b"[" * 100_000, b'{"data":' * 5_000 + b"1" + b"}" * 5_000,
    ],
)  # fmt: skip
async def test_junk_is_accepted_and_dropped(body: bytes, tmp_path: Path) -> None:
    """The sink gets a success, so that it never tries again."""
    async with simulated_tester(SCENARIO, tmp_path, gateways=GATEWAYS) as tester:
        assert await post(tester, body) == 204
        assert await event_count(tester, "used") == 0


async def test_too_much_at_once_is_refused(tmp_path: Path) -> None:
    """More than a megabyte is not read to its end."""
    async with simulated_tester(SCENARIO, tmp_path, gateways=GATEWAYS) as tester:
        assert await post(tester, b" " * 2**21) == 413


async def test_a_token_keeps_others_out(tmp_path: Path) -> None:
    """In either header; a wrong one of any bytes is a 403."""
    server = {"events_token": "s3cret"}
    async with simulated_tester(SCENARIO, tmp_path, gateways=GATEWAYS, server=server) as tester:
        assert await post(tester, b"[]") == 403
        assert await post(tester, b"[]", Authorization="Bearer s3creT") == 403
        assert await post(tester, b"[]", Authorization="Bearer ÿ\udcff") == 403
        assert await post(tester, b"[]", Authorization="Bearer s3cret") == 204
        assert await post(tester, b"[]", **{"X-Events-Token": "s3cret"}) == 204


async def test_unknown_gateways_and_orchestrators_change_nothing(tmp_path: Path) -> None:
    """Events for gateways that are not ours are ignored; an orchestrator nobody knows proves and refutes nothing."""
    async with simulated_tester(SCENARIO, tmp_path, gateways=GATEWAYS) as tester:
        assert await post(tester, json.dumps([completed_event("somebody-else")]).encode()) == 204
        assert (await event_count(tester, "ignored"), await event_count(tester, "used")) == (1, 0)
        await tester.tick()
        assert await post(tester, json.dumps([completed_event("g"), completed_event("h")]).encode()) == 204
        results = await tester.results()
        assert {row.outcome for row in results} == {"passed"}
        assert misattributed_results(results, tester.network) == []


@pytest.mark.slow
async def test_a_million_events(tmp_path: Path) -> None:
    """They are accepted in bounded memory while the daemon goes on answering and ticking."""
    body = json.dumps([completed_event("g")] * 2_000).encode()
    async with simulated_tester(SCENARIO, tmp_path, gateways=GATEWAYS) as tester:
        url = f"http://127.0.0.1:{tester.daemon.port}"
        async with aiohttp.ClientSession() as session:
            for _ in range(500):
                async with session.post(f"{url}/webhooks/gateway-events", data=body) as response:
                    assert response.status == 204
            async with session.get(f"{url}/orchestrators") as response:
                assert response.status in (200, 404)
        assert await event_count(tester, "used") == 1_000_000
        report = await tester.tick()
        assert report.outcomes["passed"] == report.planned == 3


async def test_many_events_are_answered_at_once(tmp_path: Path) -> None:
    """A batch is weighed a few events at a time, and answered long before all of it is."""
    async with simulated_tester(SCENARIO, tmp_path, gateways=GATEWAYS) as tester, tester.serving(tick=True):
        assert await post(tester, json.dumps([completed_event("g")] * 2_000).encode()) == 204
        assert len(tester.daemon.events) > 1_000


async def test_overlap_is_proven_by_events_alone(tmp_path: Path) -> None:
    """They come later than the responses; the tester waits for them, and no job has to run a second time."""
    scenario = Scenario(
        "apart", 1, (GatewaySpec("g", metrics=False, events=True, retry_window=0.1),), one_model_each(6)
    )
    overlap = {"overlap": True, "events": True, "metrics": False, "retry_window": "100ms", "settle": "50ms"}
    async with simulated_tester(scenario, tmp_path, gateways=[overlap]) as tester:
        report = await tester.tick()
        results = await tester.results()
        assert report.outcomes["passed"] == report.planned == len(tester.network.logged_jobs) == 6
        assert misattributed_results(results, tester.network) == []
        assert "proven" in {row.attribution for row in results}


@pytest.mark.slow
async def test_an_event_that_comes_while_a_result_waits_for_the_store_counts(tmp_path: Path) -> None:
    """The gateway reports that another orchestrator served the job before the result is stored: it is not scored."""
    scenario = Scenario("apart", 1, (GatewaySpec("g", mode="query", metrics=False),), one_model_each(2))
    async with simulated_tester(scenario, tmp_path, gateways=GATEWAYS[:1]) as tester:
        coordinator, database = tester.daemon.coordinator, tester.daemon.database
        async with tester.serving(tick=True):
            await until(lambda: coordinator.progress is not None and len(coordinator.progress.in_flight) == 2)
            lock = sqlite3.connect(database.path, isolation_level=None)
            lock.execute("BEGIN IMMEDIATE")
            await until(lambda: len(tester.network.logged_jobs) == 2)
            ended = time.time()
            await until(lambda: not database.is_writable)
            batch = [
                completed_event("g", model_id="of nobody"),
                completed_event(
                    "g", model_id="m0", success=True, orch_url=one_model_each(2)[1].service_uri, duration_ms=0,
                    timestamp=int(ended * 1000),
                ),
            ]  # fmt: skip
            assert await post(tester, json.dumps(batch).encode()) == 204
            await until(lambda: not len(tester.daemon.events))
            lock.close()
            await tester.first_report()
            assert {row.model: row.reason for row in await tester.results()} == {"m0": "refuted", "m1": "ok"}
        assert [row.stat["model"] for row in tester.network.leaderboard.rows] == ["m1"]


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(batch=JSON | st.lists(JSON.map(lambda value: {"gateway": "g", "data": value})))
def test_any_json_is_parsed(batch: Any) -> None:
    """Whatever it is, parsing it yields events or nothing."""
    assert all(isinstance(event.error, str) for event in parse_events(batch, 1.0))
