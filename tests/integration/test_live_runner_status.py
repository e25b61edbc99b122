"""Live runners that cannot serve, and those that are only skipped: shown with state, ticks, price and unit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.orchestrators import Capability, RunnerOffer
from jobtester.simulator.scenario import ByocSpec, GatewaySpec, OrchestratorSpec, RunnerSpec, Scenario
from jobtester.store.queries import Queries
from jobtester.store.results import Results
from jobtester.web.schemas import PlanSchema
from tests.harness.live_runners import LOOPBACK, FakeOrchestrator, answers, config, fake_orchestrators
from tests.harness.simulated import simulated_tester
from tests.harness.store import NOW, make_result, open_database
from tests.harness.waiting import TIMEOUT_S

OK = answers(lambda: web.Response(text="hello"))
METADATA = '{"schema_url":"https://docs.example/<b>.json"}'


async def test_runners_that_cannot_serve_are_counted_and_shown(tmp_path: Path) -> None:
    """After three ticks the page, the API and a plan say which runner is full, elsewhere or gone, and for how long."""
    node = FakeOrchestrator(
        dict.fromkeys(("fine", "full", "elsewhere", "gone", "priced"), OK),
        {
            "fine": {"gpu": {"name": "NVIDIA GeForce RTX 4090"}, "metadata": METADATA},
            "full": {"capacity_used": 1, "capacity_available": 0},
            "elsewhere": {"url": "https://other.example/apps/elsewhere/app"},
            "priced": {"price_info": {"price": 2**64 - 1, "currency": "wei", "unit": "720p-pixel-seconds"}},
        },
    )
    pipelines = {"any": {"runner": True, "apps": ["someone/*"], "uri": "/"}}
    async with (
        fake_orchestrators(node) as tables,
        open_daemon(config(tmp_path, tables, pipelines=pipelines)) as daemon,
        aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}") as session,
    ):
        address = tables[0]["address"]
        for _ in range(3):
            await asyncio.wait_for(daemon.run_once("test"), TIMEOUT_S)
            node.apps.pop("gone", None)
        async with session.get(f"/api/orchestrators/{address}") as response:
            listed = (await response.json())["live_runners"]
        async with session.get(f"/o/{address}") as response:
            page = await response.text()
        async with session.get("/api/results?pipeline=someone/fine&limit=1") as response:
            (result,) = (await response.json())["items"]
        async with session.get(f"/r/{result['id']}") as response:
            result_page = await response.text()
        planner = daemon.coordinator.planner
        plan = PlanSchema.from_plan(await planner.plan("plan", await planner.discover()))
    states = {runner["app"].removeprefix("someone/"): (runner["state"], runner["ticks"]) for runner in listed}
    assert states == {
        "fine": ("listed", 3), "full": ("no_capacity", 3), "elsewhere": ("foreign_url", 3), "gone": ("gone", 2),
        "priced": ("listed", 3),
    }  # fmt: skip
    assert "foreign_url</span> for 3 ticks" in page
    assert "gone</span> for 2 ticks" in page
    assert f"{2**64 - 1} wei per 720p-pixel-second<" in page
    assert "<b>" not in page + result_page
    assert "https://docs.example/&lt;b&gt;.json" in result_page
    assert result["kind"] == "live-runner"
    assert (result["runner"]["gpu"], result["runner"]["mode"]) == ("NVIDIA GeForce RTX 4090", "single-shot")
    assert {(runner.app, runner.ticks) for runner in plan.unusable_runners} == {
        ("someone/full", 4), ("someone/elsewhere", 4), ("someone/gone", 3)
    }  # fmt: skip
    (unpaid,) = (skip for skip in plan.skipped if skip.reason == "unpaid")
    assert unpaid.runner is not None
    assert (unpaid.runner.price_wei, unpaid.runner.unit) == (str(2**64 - 1), "720p-pixel-seconds")


async def test_an_orchestrator_with_nothing_but_skipped_runners_has_a_page(tmp_path: Path) -> None:
    """What it lists is worth a page also where nothing has been tested; a restart forgets nothing."""
    node = FakeOrchestrator({"unknown": OK})
    async with fake_orchestrators(node) as tables:
        configuration = config(tmp_path, tables)
        async with open_daemon(configuration) as daemon:
            await asyncio.wait_for(daemon.run_once("test"), TIMEOUT_S)
        async with (
            open_daemon(configuration) as daemon,
            aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}") as session,
        ):
            address = tables[0]["address"]
            for path in (f"/o/{address}", f"/api/orchestrators/{address}"):
                async with session.get(path) as response:
                    assert response.status == 200
                    assert "someone/unknown" in await response.text()


async def test_one_app_in_two_ways_has_two_histories(tmp_path: Path) -> None:
    """A BYOC capability of an app's name and version shares neither duration, streak nor page with the live runner."""
    ways: dict[str, dict[str, Any]] = {
        "byoc": {"byoc": True},
        "live-runner": {"runner": RunnerOffer("https://o1.example:8935/apps/a/app", "single-shot")},
    }
    async with open_database(tmp_path / "a.db") as database:
        results, queries = Results(database, lambda: NOW), Queries(database)
        for kind, code in (("byoc", "ok"), ("live-runner", "busy"), ("byoc", "busy"), ("live-runner", "busy")):
            result = make_result(code)
            job = replace(result.job, capability=Capability("someone/app", "1", **ways[kind]))
            await results.record(replace(result, job=job), None)
        rows = await queries.matrix()
        assert {row.kind: (row.unscored_streak, len(row.recent)) for row in rows} == {
            "byoc": (1, 2),
            "live-runner": (2, 2),
        }
        assert {key.kind: streak for key, streak in (await results.unscored_streaks("t")).items()} == {
            "byoc": 1,
            "live-runner": 2,
        }
        assert [key.kind for key in await results.durations()] == ["byoc"]
        assert {key.kind for key in await results.tested_since(0)} == {"byoc"}


async def test_one_app_in_two_ways_stands_side_by_side(tmp_path: Path) -> None:
    """A BYOC capability and a live runner of one name and version are both tested, and the page says which is which."""
    name, model = "openai-chat-completions", "1.2.0"
    node = OrchestratorSpec(
        address=f"0x{7:040x}",
        service_uri="https://127.0.0.1:0",
        byoc=(ByocSpec(name, model, latency_s=(0.0, 0.01)),),
        runners=(RunnerSpec(app=name, version=model, app_kind="openai-chat", fault="runner_fails"),),
    )
    gateways = (GatewaySpec("gateway", mode="tester"),)
    live_runner = {"enabled": True, "networks": list(LOOPBACK)}
    async with (
        simulated_tester(Scenario("two", 1, gateways, (node,)), tmp_path, live_runner=live_runner) as tester,
        aiohttp.ClientSession(f"http://127.0.0.1:{tester.daemon.port}") as session,
    ):
        await tester.tick()
        await tester.tick()
        async with session.get(f"/api/orchestrators/{node.address}") as response:
            capabilities = (await response.json())["capabilities"]
        async with session.get(f"/o/{node.address}") as response:
            page = await response.text()
    states = {
        entry["kind"]: (entry["pipeline"], entry["model"], [point["reason"] for point in entry["recent"]])
        for entry in capabilities
    }
    assert states == {
        "byoc": (name, model, ["ok", "ok"]),
        "live-runner": (name, model, ["app_error", "app_error"]),
    }
    assert page.count("<small>byoc</small>") == page.count("<small>live runner</small>") == 3  # a card, and two results
