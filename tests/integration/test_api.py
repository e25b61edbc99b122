"""The API gives what the document says, page by page, and refuses what it does not know by name."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from jsonschema import Draft202012Validator

from jobtester.simulator.scenario import GatewaySpec, generate
from jobtester.store.database import Database
from jobtester.store.ticks import Ticks
from jobtester.web import webhooks
from jobtester.web.api import api as api_routes
from tests.harness.simulated import SimulatedTester, simulated_tester
from tests.harness.waiting import until

TOKEN = "a-token-of-the-test"
SECRET = "a-secret-of-the-test"


@dataclass(slots=True)
class ApiClient:
    """Asks a tester, and holds every answer against its own document."""

    session: aiohttp.ClientSession
    base: str
    document: dict[str, Any]

    async def ask(self, path: str, *, method: str = "GET", expect: int = 200, **how: Any) -> Any:
        """Return an answer's JSON after checking its status and its shape."""
        async with self.session.request(method, self.base + path, **how) as answer:
            text = await answer.text()
            assert answer.status == expect, f"{path}: {answer.status} {text}"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.content_type == "application/json"
        found = json.loads(text)
        self.hold(path.partition("?")[0], method, expect, found)
        return found

    def hold(self, path: str, method: str, status: int, found: Any) -> None:
        """Assert that an answer is what the document promises for it."""
        routes = self.document["paths"]
        name = path if path in routes else path.rpartition("/")[0] + ("/{address}" if "orch" in path else "/{id}")
        answers = routes[name][method.lower()]["responses"]
        promised = answers.get(str(status)) or answers["default"]
        schema = promised["content"]["application/json"]["schema"]
        whole = {**schema, "components": self.document["components"]}
        Draft202012Validator(whole).validate(found)

    async def pages(self, path: str) -> list[list[Any]]:
        """Follow `next` to the end."""
        found, cursor = [], ""
        while True:
            page = await self.ask(path + (f"&cursor={cursor}" if cursor else ""))
            found.append(page["items"])
            cursor = page["next"]
            if cursor is None:
                return found


@asynccontextmanager
async def api_client(
    tmp_path: Any, *, ticks: int = 1, **sections: Any
) -> AsyncIterator[tuple[SimulatedTester, ApiClient]]:
    """Start a tester that has tested a network with faults, and a caller of it."""
    scenario = generate(
        seed=3,
        orchestrators=6,
        models_per_pipeline=2,
        pipelines=("llm", "text-to-image"),
        latency_s=(0.0, 0.01),
        fault_share=0.5,
        fault_names=("garbage_json", "empty_text", "wrong_answer"),
        gateways=(GatewaySpec(name="gateway", mode="query", retry_window=0.1),),
    )
    async with simulated_tester(scenario, tmp_path, **sections) as tester, aiohttp.ClientSession() as session:
        for _ in range(ticks):
            await tester.tick()
        base = f"http://127.0.0.1:{tester.daemon.port}"
        async with session.get(f"{base}/api/openapi.json") as answer:
            caller = ApiClient(session, base, await answer.json())
        yield tester, caller


async def test_every_route_answers_as_the_document_says(tmp_path: Any) -> None:
    """Each GET route's real answer, with results of all kinds, is valid under the document, which is itself sound."""
    async with api_client(tmp_path) as (tester, api):
        assert api.document == json.loads(json.dumps(api_routes.document()))
        for schema in api.document["components"]["schemas"].values():
            Draft202012Validator.check_schema(schema)
        kept = await tester.results()
        assert {row.outcome for row in kept} >= {"passed", "failed"}
        assert len((await api.ask("/api/results"))["items"]) == len(kept)
        for row in kept:
            whole = await api.ask(f"/api/results/{row.id}")
            assert (whole["reason"], whole["evidence"]) == (row.reason, list(row.evidence))
            assert whole["request"] == row.request
        tick = (await api.ask("/api/ticks"))["items"][0]
        assert tick["report"]["settled"] == len(kept)
        assert (
            (await api.ask("/api/ticks/last"))["id"] == (await api.ask(f"/api/ticks/{tick['id']}"))["id"] == tick["id"]
        )
        everyone = (await api.ask("/api/orchestrators"))["items"]
        assert [one["orchestrator"] for one in everyone] == sorted({row.orchestrator for row in kept})
        for one in everyone:
            assert (await api.ask(f"/api/orchestrators/{one['orchestrator'].upper().replace('X', 'x')}")) == one
        status = await api.ask("/api/status")
        assert status["progress"]["settled"] == len(kept)
        assert not status["progress"]["running"]
        await api.ask("/api/openapi.json")
        delivered = await api.ask("/api/outbox?state=delivered")
        assert delivered["counts"]["delivered"] == len(delivered["items"]) == len(tester.network.leaderboard.rows)
        assert {one["result"] for one in delivered["items"]} <= {row.id for row in kept}
        assert (await api.ask("/api/outbox"))["items"] == []
        assert (await api.ask("/api/received"))["items"] == []


async def test_the_document_names_every_route_and_no_other(tmp_path: Any) -> None:
    """What the application serves under /api and what the document lists are the same."""
    served = {
        (route.method, route.path)
        for routes in (api_routes.routes, webhooks.routes)
        for route in routes
        if isinstance(route, web.RouteDef) and route.path.startswith("/api/")
    }
    told = {(method.upper(), path) for path, methods in api_routes.document()["paths"].items() for method in methods}
    assert served == told


async def test_paging_gives_each_item_once_though_more_is_recorded_meanwhile(tmp_path: Any) -> None:
    """Pages of any size put together are the whole list; ids and pages do not move when a tick adds to it."""
    async with api_client(tmp_path, ticks=3) as (tester, api):
        whole = [one["id"] for one in (await api.ask("/api/results?limit=500"))["items"]]
        for limit in (1, 7, len(whole), len(whole) + 1):
            pages = await api.pages(f"/api/results?limit={limit}")
            assert [one["id"] for page in pages for one in page] == whole
        first = await api.ask("/api/results?limit=5")
        await tester.tick()
        second = await api.ask(f"/api/results?limit=5&cursor={first['next']}")
        assert [one["id"] for one in first["items"] + second["items"]] == whole[:10]
        for path, key in (
            ("/api/ticks", "id"),
            ("/api/orchestrators", "orchestrator"),
            ("/api/outbox?state=delivered", "number"),
        ):
            joined = f"{path}{'&' if '?' in path else '?'}"
            every = [one[key] for one in (await api.ask(f"{joined}limit=500"))["items"]]
            assert len(every) == len(set(every)) >= 4
            pages = await api.pages(f"{joined}limit=3")
            assert [one[key] for page in pages for one in page] == every


async def test_filters_give_what_they_say(tmp_path: Any) -> None:
    """Each filter of results alone, and all together, gives exactly the results with these fields."""
    async with api_client(tmp_path, ticks=2) as (_, api):
        every = (await api.ask("/api/results?limit=500"))["items"]
        failed = next(one for one in every if one["outcome"] == "failed")
        names = ("tick", "orchestrator", "pipeline", "model", "outcome", "reason")
        for wanted in (*((name,) for name in names), names):
            params = {name: failed[name] for name in wanted}
            found = (await api.ask("/api/results", params={**params, "limit": "500"}))["items"]
            assert found == [one for one in every if all(one[name] == failed[name] for name in wanted)]
            assert failed in found
        narrowed = await api.ask("/api/orchestrators?pipeline=llm")
        assert {one["pipeline"] for who in narrowed["items"] for one in who["capabilities"]} == {"llm"}
        assert (await api.ask("/api/orchestrators?pipeline=none"))["items"] == []


REFUSED = [
    ("/api/results?limit=0", 400, "limit"),
    ("/api/results?limit=501", 400, "limit"),
    ("/api/results?limit=ten", 400, "limit"),
    ("/api/results?limit=%D9%A1", 400, "limit"),
    ("/api/results?limit=", 400, "limit"),
    ("/api/results?limit=1&limit=2", 400, "limit"),
    ("/api/results?cursor=-1", 400, "cursor"),
    ("/api/results?cursor=99999999999999999999", 400, "cursor"),
    ("/api/results?orchestrator=0x12", 400, "orchestrator"),
    ("/api/results?outcome=won", 400, "outcome"),
    ("/api/results?reason=because", 400, "reason"),
    ("/api/results?page=2", 400, "page"),
    ("/api/results?model=" + "x" * 1001, 400, "model"),
    ("/api/orchestrators?cursor=5", 400, "cursor"),
    ("/api/orchestrators/0x12", 400, "address"),
    ("/api/orchestrators/0x" + "0" * 40, 404, "orchestrator"),
    ("/api/results/none", 404, "result"),
    ("/api/results/%00", 400, "id"),
    ("/api/results/" + "x" * 201, 400, "id"),
    ("/api/ticks/none", 404, "tick"),
    ("/api/ticks?cursor=none", 400, "cursor"),
    ("/api/ticks/last?x=1", 400, "x"),
    ("/api/outbox?state=lost", 400, "state"),
    ("/api/received?cursor=x", 400, "cursor"),
    ("/api/status?verbose=1", 400, "verbose"),
    ("/api/openapi.json?x=1", 400, "x"),
]


async def test_bad_questions_get_one_message_that_names_the_parameter(tmp_path: Any) -> None:
    """Wrong, unknown, empty, doubled and overlong parameters: 400; ids of nothing: 404; other paths: 404; all JSON."""
    async with api_client(tmp_path, ticks=0) as (_, api):
        for path, status, word in REFUSED:
            assert word in (await api.ask(path, expect=status))["error"], path
        for method, path, status in (
            ("GET", "/api/nothing", 404), ("GET", "/api/", 404), ("DELETE", "/api/results", 405),
            ("GET", "/api/results/a/b", 404),
        ):  # fmt: skip
            async with api.session.request(method, api.base + path) as answer:
                assert answer.status == status
                found = await answer.json()
                assert list(found) == ["error"]
        for odd in ("%ED%A0%80", "%FF%FE", "%F0%9F%A6%8A", "%27%20OR%201=1--"):
            async with api.session.get(f"{api.base}/api/results?model={odd}") as answer:
                assert answer.status in (200, 400)
            async with api.session.get(f"{api.base}/api/results/{odd}") as answer:
                assert answer.status in (400, 404)


async def test_a_tick_is_started_by_whoever_has_the_token(tmp_path: Any) -> None:
    """202 and a tick with trigger `api`; 409 while it runs; 401 for no, a wrong or an unfit token."""
    async with (
        api_client(tmp_path, ticks=0, server={"host": "127.0.0.1", "port": 0, "admin_token": TOKEN}) as (
            tester,
            api,
        ),
        tester.serving(),
    ):
        for given in ("", "Bearer wrong", TOKEN, f"Basic {TOKEN}", "Bearer ", "Bearer é"):
            headers = {"Authorization": given} if given else {}
            found = await api.ask("/api/ticks", method="POST", expect=401, headers=headers)
            assert "token" in found["error"]
            assert TOKEN not in found["error"]
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert await api.ask("/api/ticks", method="POST", expect=202, headers=right) == {"state": "accepted"}
        assert "already running" in (await api.ask("/api/ticks", method="POST", expect=409, headers=right))["error"]

        async def tick_ended() -> bool:
            progress = (await api.ask("/api/status"))["progress"]
            return progress is not None and not progress["running"]

        await until(tick_ended, "the tick ends", timeout_s=100)
        found = await api.ask("/api/ticks/last")
        assert (found["trigger"], found["state"]) == ("api", "finished")


async def test_no_second_tick_is_accepted_while_one_is_about_to_run(tmp_path: Any) -> None:
    """A tick that first takes over a changed configuration, which may take a while, is one that runs already."""
    async with api_client(tmp_path, ticks=0, server={"host": "127.0.0.1", "port": 0, "admin_token": TOKEN}) as (
        tester,
        api,
    ):
        taken_over, begins = asyncio.Event(), asyncio.Event()

        async def before() -> None:
            begins.set()
            await taken_over.wait()

        tester.daemon.coordinator.before_tick = before
        async with tester.serving():
            right = {"Authorization": f"Bearer {TOKEN}"}
            await api.ask("/api/ticks", method="POST", expect=202, headers=right)
            await begins.wait()
            await api.ask("/api/ticks", method="POST", expect=409, headers=right)
            taken_over.set()


class TicksReadBeforeEnd(Ticks):
    """Ticks of which somebody asks just before their end is noted."""

    def __init__(self, database: Database, api: ApiClient) -> None:
        super().__init__(database)
        self.api = api
        self.ran: list[bool] = []

    async def finish(self, tick: str, state: str, finished_at: float, report: dict[str, Any]) -> None:
        """Ask whether it runs, and note its end."""
        self.ran.append((await self.api.ask("/api/status"))["progress"]["running"])
        await super().finish(tick, state, finished_at, report)


async def test_a_tick_that_is_said_to_be_over_is_kept(tmp_path: Any) -> None:
    """Whoever waits for its end and then asks for it gets its end, never its beginning."""
    async with api_client(tmp_path, ticks=0) as (tester, api):
        tester.daemon.coordinator.ticks = ticks = TicksReadBeforeEnd(tester.daemon.database, api)
        report = await tester.tick()
        assert ticks.ran == [True]
        assert not (await api.ask("/api/status"))["progress"]["running"]
        found = await api.ask("/api/ticks/last")
        assert (found["state"], found["finished_at"]) == (report.state, report.finished_at)


async def test_without_a_token_no_tick_is_started(tmp_path: Any) -> None:
    """The route is off, and names the key that turns it on."""
    async with api_client(tmp_path, ticks=0) as (_, api):
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            found = await api.ask("/api/ticks", method="POST", expect=404, headers=headers)
            assert "server.admin_token" in found["error"]


async def test_a_running_tick_is_shown_as_it_goes(tmp_path: Any) -> None:
    """While jobs are in flight, the status names them and the tick has its report so far."""
    async with api_client(tmp_path, ticks=0) as (tester, api):
        seen: set[str] = set()
        running = asyncio.create_task(tester.tick())
        while not running.done():
            status = await api.ask("/api/status")
            if status["progress"] and status["progress"]["in_flight"]:
                seen |= {one["id"] for one in status["progress"]["in_flight"]}
            for tick in (await api.ask("/api/ticks"))["items"]:
                await api.ask(f"/api/ticks/{tick['id']}")
        assert seen & {row.id for row in await tester.results()}


@pytest.mark.parametrize("path", ["/api/post_stats", "/webhooks/test-results"])
async def test_results_of_other_testers_are_listed(path: str, tmp_path: Any) -> None:
    """A result that another tester posts is found under /api/received, and on its way in the outbox."""
    server = {"host": "127.0.0.1", "port": 0, "results_secret": SECRET}
    async with api_client(tmp_path, ticks=0, server=server) as (_, api):
        stat = {
            "region": "FRA", "orchestrator": "0x" + "ab" * 20, "success_rate": 1.0, "round_trip_time": 1.5,
            "errors": [], "timestamp": int(time.time()), "model": "m", "pipeline": "LLM", "input_parameters": "",
            "response_payload": "",
        }  # fmt: skip
        body = json.dumps(stat).encode()
        signed = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        async with api.session.post(api.base + path, data=body, headers={"Authorization": signed}) as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
        if path == "/api/post_stats":
            await api.ask(path, method="POST", expect=403, data=body, headers={"Authorization": "no"})
        found = (await api.ask("/api/received"))["items"]
        assert [one["stat"]["model"] for one in found] == ["m"]
        assert [one["model"] for one in (await api.ask("/api/outbox"))["items"]] == ["m"]
