"""Live runners over real TLS sockets: found, called without a gateway, judged, and nobody else charged."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.orchestrators import Orchestrator
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import Scenario
from tests.harness.live_runners import (
    LOOPBACK,
    REASON_BY_FAULT,
    FakeOrchestrator,
    Handler,
    answers,
    chat,
    config,
    fake_orchestrators,
    hang_up,
    own_error,
    run_tick,
    runner_discovery,
)
from tests.harness.ports import free_port
from tests.harness.simulated import SimulatedTester, config_tables
from tests.harness.waiting import TIMEOUT_S


async def test_apps_pass_without_any_gateway(tmp_path: Path) -> None:
    """Jobs go to the orchestrator alone; the result is proven, and carries the app's name and version."""
    node = FakeOrchestrator(
        {"hello-world": answers(lambda: web.Response(text="hello")), "openai-chat-completions": chat},
        {"openai-chat-completions": {"version": "1.2.0"}},
    )
    async with fake_orchestrators(node) as tables:
        results, _ = await run_tick(config(tmp_path, tables))
    assert {name: row.reason for name, row in results.items()} == {
        "someone/hello-world": "ok",
        "someone/openai-chat-completions": "ok",
    }
    result = results["someone/openai-chat-completions"]
    assert (result.model, result.gateway, result.targeting) == ("1.2.0", "live-runner", "direct")
    assert result.attribution == "proven"
    assert 0 < result.round_trip_s < TIMEOUT_S
    assert results["someone/hello-world"].model == "default"
    sent = {path: (method, body) for method, path, body in node.requests}
    assert sent["/"] == ("GET", b"")
    method, body = sent["/v1/chat/completions"]
    assert method == "POST"
    assert json.loads(body)["model"] == "default"


ERRORS: dict[str, tuple[Handler, str, str]] = {
    "gone": (answers(lambda: own_error(404, "runner not found")), "app_gone", "failed"),
    "down": (answers(lambda: own_error(502, "dial tcp: connection refused")), "app_down", "failed"),
    "full": (answers(lambda: own_error(503, "no capacity available for runner")), "busy", "unscored"),
    "wrong-mode": (answers(lambda: own_error(400, "runner is not single-shot")), "tester_fault", "unscored"),
    "pretends": (answers(lambda: web.Response(status=404, text="runner not found")), "app_refused", "unscored"),
    "crashes": (answers(lambda: web.Response(status=500, text="boom")), "app_error", "failed"),
    "wants-money": (answers(lambda: web.json_response({"payment_params": "eA=="}, status=402)),
                    "payment_required", "unscored"),
    "empty": (answers(lambda: web.Response(text="")), "check:body", "failed"),
    "hangs-up": (hang_up, "app_cut_short", "failed"),
    "elsewhere": (answers(lambda: web.Response(status=307, headers={"Location": "https://other.example/"})),
                  "refuted", "unscored"),
}  # fmt: skip


async def test_each_error_has_its_reason(tmp_path: Path) -> None:
    """Whose fault it is follows from the exact answer; a busy app is tried again, an app that hangs up is not."""
    node = FakeOrchestrator({app: handler for app, (handler, _, _) in ERRORS.items()})
    pipelines = {"any": {"runner": True, "apps": ["someone/*"], "uri": "/run", "timeout": "20s"}}
    async with fake_orchestrators(node, FakeOrchestrator()) as tables:
        results, _ = await run_tick(config(tmp_path, tables, pipelines=pipelines))
    verdicts = {name.removeprefix("someone/"): (row.reason, row.outcome) for name, row in results.items()}
    assert verdicts == {app: (reason, outcome) for app, (_, reason, outcome) in ERRORS.items()}
    assert results["someone/elsewhere"].attribution == "refuted"
    assert results["someone/full"].deferred == 2
    assert len(node.requests) == len(ERRORS) + 2


async def test_a_get_is_measured_once(tmp_path: Path) -> None:
    """A connection that closes without an answer is not tried again behind the tester's back."""
    node = FakeOrchestrator({"hello-world": hang_up})
    async with fake_orchestrators(node, FakeOrchestrator()) as tables:
        results, _ = await run_tick(config(tmp_path, tables))
    assert results["someone/hello-world"].reason == "app_cut_short"
    assert len(node.requests) == 1


async def test_silence_and_refusal(tmp_path: Path) -> None:
    """An app that never answers, and an orchestrator that is gone after it was asked, fail: others can be reached."""
    is_over = asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        await is_over.wait()
        return web.Response()

    silent = FakeOrchestrator({"silent": wait})
    gone = FakeOrchestrator({"gone": wait}, closes_after_discovery=True)
    pipelines = {"any": {"runner": True, "apps": ["someone/*"], "uri": "/run", "timeout": "500ms"}}
    async with fake_orchestrators(silent, gone) as tables:
        results, _ = await run_tick(config(tmp_path, tables, pipelines=pipelines))
        is_over.set()
    assert results["someone/silent"].reason == "timeout"
    assert results["someone/gone"].reason == "unreachable"
    assert not gone.requests


async def test_what_is_not_tested_says_why(tmp_path: Path) -> None:
    """A price, a video stream, a URL of another host and a missing definition are skips, each with its reason."""
    ok = answers(lambda: web.Response(text="ok"))
    node = FakeOrchestrator(
        dict.fromkeys(("priced", "stream", "foreign", "unknown", "hello-world"), ok),
        {
            "priced": {"price_info": {"price": 7, "currency": "wei", "unit": "fixed"}},
            "stream": {"mode": None, "url": "{uri}/apps/stream/scope"},
            "foreign": {"url": "https://other.example/apps/foreign/app"},
        },
    )
    pipelines = {
        "any": {"runner": True, "apps": ["someone/priced", "someone/stream", "someone/foreign"], "uri": "/run"},
        "someone/hello-world": {"runner": True, "uri": "/own", "enabled": False},
    }
    async with fake_orchestrators(node) as tables:
        results, skipped = await run_tick(config(tmp_path, tables, pipelines=pipelines))
    assert not results
    assert not node.requests
    assert skipped == {"unpaid": 1, "stream_per_job": 1, "foreign_url": 1, "no_definition": 1, "disabled": 1}


async def test_orchestrators_are_tested_side_by_side(tmp_path: Path) -> None:
    """Each app answers only once all orchestrators have been asked, so one after the other would never end."""
    barrier = asyncio.Barrier(4)

    async def wait(_: web.Request) -> web.Response:
        async with barrier:
            return web.Response(text="ok")

    nodes = [FakeOrchestrator({f"hello-{number}": wait}) for number in range(4)]
    pipelines = {"hello": {"runner": True, "apps": ["someone/hello-?"], "uri": "/"}}
    async with fake_orchestrators(*nodes) as tables:
        results, _ = await run_tick(config(tmp_path, tables, pipelines=pipelines))
    assert [row.reason for row in results.values()] == ["ok"] * 4


async def test_a_dead_gateways_jobs_are_given_up_beside_live_runners(tmp_path: Path) -> None:
    """What only a gateway can send is skipped when its deadline comes; the runner's job has passed by then."""
    node = FakeOrchestrator({"hello-world": answers(lambda: web.Response(text="hello"))})
    async with fake_orchestrators(node) as tables:
        tables[0]["capabilities"] = [{"pipeline": "llm", "model": "m"}]
        results, skipped = await run_tick(config(tmp_path, tables, schedule={"run_at_start": False, "deadline": "3s"}))
    assert {name: row.reason for name, row in results.items()} == {"someone/hello-world": "ok"}
    assert sum(skipped.values()) == 1


async def test_not_enabled_asks_nobody(tmp_path: Path) -> None:
    """Without [live_runner] no orchestrator hears of the tester."""
    discoveries = []

    async def discover(_: web.Request) -> web.Response:
        discoveries.append(1)
        return web.json_response([])

    async with fake_orchestrators(FakeOrchestrator(discovery=discover)) as tables:
        results, _ = await run_tick(config(tmp_path, tables, live_runner={"networks": list(LOOPBACK)}))
    assert not discoveries
    assert not results


@pytest.mark.slow
async def test_the_simulated_network(tmp_path: Path) -> None:
    """Every app is judged as its fault deserves, no session stays open, and nobody is paid twice for a request."""
    scenario = Scenario.load("live-runner")
    faults = {
        (node.address, runner.app): runner.fault or node.fault
        for node in scenario.orchestrators
        for runner in node.runners
    }
    echo = {"runner": True, "apps": ["*/echo*"], "uri": "/say", "timeout": "10s", "parameters": {"text": "hello"}}
    async with Network(scenario) as network:
        payment = {"signer_url": network.signer.url, "max_price_per_job": "0.001 ETH"}
        tables = config_tables(
            network,
            tmp_path,
            live_runner={"enabled": True, "networks": list(LOOPBACK), "probe": "reserve", "payment": payment},
            pipelines={"hello-world": {"timeout": "10s"}, "echo": echo},
            limits={"max_response": "8MiB"},
        )
        async with open_daemon(Configuration.from_tables(tables, origin="test")) as daemon:
            tester = SimulatedTester(network, daemon)
            report = await tester.tick()
            rows = await tester.results()
        assert not [runner for port in network.service_ports for runner in port.runners if runner.sessions]
        paid = Counter(request.request_id for request in network.runner_requests if request.paid_wei)
        assert paid
        assert max(paid.values()) == 1
        called = {(request.address, request.app) for request in network.runner_requests}
    results = {(row.orchestrator, row.pipeline): row for row in rows if (row.orchestrator, row.pipeline) in faults}
    assert {key: row.reason for key, row in results.items()} == {key: REASON_BY_FAULT[faults[key]] for key in results}
    assert {faults[key] for key in results} == set(REASON_BY_FAULT)
    assert {row.attribution for row in results.values() if row.reason != "refuted"} == {"proven"}
    assert {"price", "foreign_url"} <= set(report.skipped)
    assert called <= set(results)


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    blanks = b" " * 65_536
    # Writing to a connection that is gone neither waits nor raises at once.
    while request.transport is not None and not request.transport.is_closing():
        await response.write(blanks)
        await asyncio.sleep(0)
    return response


async def _silent(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


@pytest.mark.parametrize(
    ("handler", "problems"),
    [
        (_endless, 1),
        (_silent, 0),
        (answers(lambda: web.Response(text="<html>", content_type="text/html")), 1),
        (answers(lambda: web.Response(status=404, text="live runners are not supported")), 0),
        (answers(lambda: web.Response(status=307, headers={"Location": "/discovery"})), 1),
        (answers(lambda: web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})), 1),
        (answers(lambda: web.json_response([{"runners": [{"app": f"a{n}"} for n in range(10_000)]}])), 11),
        (hang_up, 0),
    ],
)
async def test_hostile_lists_cost_little(handler: Handler, problems: int) -> None:
    """Each ends within its limits without a runner."""
    async with (
        fake_orchestrators(FakeOrchestrator(discovery=handler)) as (table,),
        runner_discovery(timeout_s=2.0, max_runners=10) as discovery,
    ):
        listing = await asyncio.wait_for(discovery.list_runners(table["service_uri"]), TIMEOUT_S)
    assert not listing.capabilities
    assert len(listing.problems) == problems


async def test_the_testers_own_addresses_are_not_asked() -> None:
    """A service URI on the chain may name the tester's own machine; without `networks` nothing is sent there."""
    discoveries = []

    async def discover(_: web.Request) -> web.Response:
        discoveries.append(1)
        return web.json_response([])

    async with (
        fake_orchestrators(FakeOrchestrator(discovery=discover)) as (table,),
        runner_discovery(networks=()) as discovery,
    ):
        port = table["service_uri"].rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
            await discovery.list_runners(f"https://{host}:{port}")
        assert not discoveries


async def test_orchestrators_keep_their_order_and_capabilities() -> None:
    """Runners are added to what is known; those that do not answer stay as they were."""
    node = FakeOrchestrator({"hello-world": answers(lambda: web.Response(text="x"))})
    async with fake_orchestrators(node) as (table,), runner_discovery() as discovery:
        orchestrators = [
            Orchestrator("0xa", f"https://127.0.0.1:{free_port()}"),
            Orchestrator("0xb", table["service_uri"]),
            Orchestrator("0xc", ""),
            Orchestrator("0xd", "https://[broken"),
        ]
        extended = await discovery.add_runners(orchestrators)
    assert [orchestrator.address for orchestrator in extended] == ["0xa", "0xb", "0xc", "0xd"]
    assert [len(orchestrator.capabilities) for orchestrator in extended] == [0, 1, 0, 0]
