"""The API answers as its document says, page by page, and names each parameter that it does not know."""

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

from jobtester.domain.orchestrators import Capability
from jobtester.domain.plan import Skip
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec
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
    """Asks a tester, and checks every answer against the document that describes it."""

    session: aiohttp.ClientSession
    base: str
    document: dict[str, Any]

    async def ask(self, path: str, *, method: str = "GET", expect: int = 200, **options: Any) -> Any:
        """Return an answer's JSON after checking its status and its shape."""
        async with self.session.request(method, self.base + path, **options) as answer:
            text = await answer.text()
            assert answer.status == expect, f"{path}: {answer.status} {text}"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.content_type == "application/json"
        body = json.loads(text)
        self.assert_documented(path.partition("?")[0], method, expect, body)
        return body

    def assert_documented(self, path: str, method: str, status: int, body: Any) -> None:
        """Assert that an answer is what the document promises for it."""
        routes = self.document["paths"]
        name = path if path in routes else path.rpartition("/")[0] + ("/{address}" if "orch" in path else "/{id}")
        answers = routes[name][method.lower()]["responses"]
        promised = answers.get(str(status)) or answers["default"]
        schema = promised["content"]["application/json"]["schema"]
        whole = {**schema, "components": self.document["components"]}
        Draft202012Validator(whole).validate(body)

    async def pages(self, path: str) -> list[list[Any]]:
        """Follow `next` to the end."""
        body, cursor = [], ""
        while True:
            page = await self.ask(path + (f"&cursor={cursor}" if cursor else ""))
            body.append(page["items"])
            cursor = page["next"]
            if cursor is None:
                return body


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
        rows = await tester.results()
        assert {row.outcome for row in rows} >= {"passed", "failed"}
        assert len((await api.ask("/api/results"))["items"]) == len(rows)
        for row in rows:
            whole = await api.ask(f"/api/results/{row.id}")
            assert (whole["reason"], whole["evidence"]) == (row.reason, list(row.evidence))
            assert whole["request"] == row.request
        tick = (await api.ask("/api/ticks"))["items"][0]
        assert tick["report"]["settled"] == len(rows)
        assert (
            (await api.ask("/api/ticks/last"))["id"] == (await api.ask(f"/api/ticks/{tick['id']}"))["id"] == tick["id"]
        )
        orchestrators = (await api.ask("/api/orchestrators"))["items"]
        assert [item["orchestrator"] for item in orchestrators] == sorted({row.orchestrator for row in rows})
        for item in orchestrators:
            assert (await api.ask(f"/api/orchestrators/{item['orchestrator'].upper().replace('X', 'x')}")) == item
        status = await api.ask("/api/status")
        assert status["progress"]["settled"] == len(rows)
        assert not status["progress"]["running"]
        await api.ask("/api/openapi.json")
        delivered = await api.ask("/api/outbox?state=delivered")
        assert delivered["counts"]["delivered"] == len(delivered["items"]) == len(tester.network.leaderboard.rows)
        assert {item["result"] for item in delivered["items"]} <= {row.id for row in rows}
        assert (await api.ask("/api/outbox"))["items"] == []
        assert (await api.ask("/api/received"))["items"] == []


def test_the_document_names_every_route_and_no_other() -> None:
    """What the application serves under /api and what the document lists are the same."""
    served = {
        (route.method, route.path)
        for routes in (api_routes.routes, webhooks.routes)
        for route in routes
        if isinstance(route, web.RouteDef) and route.path.startswith("/api/")
    }
    paths = api_routes.document()["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert served == described


async def test_paging_returns_each_item_once_though_more_is_recorded_meanwhile(tmp_path: Any) -> None:
    """Pages of any size put together are the whole list; ids and pages do not move when a tick adds to it."""
    async with api_client(tmp_path, ticks=3) as (tester, api):
        whole = [item["id"] for item in (await api.ask("/api/results?limit=500"))["items"]]
        for limit in (1, 7, len(whole), len(whole) + 1):
            pages = await api.pages(f"/api/results?limit={limit}")
            assert [item["id"] for page in pages for item in page] == whole
        first = await api.ask("/api/results?limit=5")
        await tester.tick()
        second = await api.ask(f"/api/results?limit=5&cursor={first['next']}")
        assert [item["id"] for item in first["items"] + second["items"]] == whole[:10]
        for path, key in (
            ("/api/ticks", "id"),
            ("/api/orchestrators", "orchestrator"),
            ("/api/outbox?state=delivered", "number"),
        ):
            url = f"{path}{'&' if '?' in path else '?'}"
            items = [item[key] for item in (await api.ask(f"{url}limit=500"))["items"]]
            assert len(items) == len(set(items)) >= 4
            pages = await api.pages(f"{url}limit=3")
            assert [item[key] for page in pages for item in page] == items


async def test_filters_select_by_each_field(tmp_path: Any) -> None:
    """Each filter of results alone, and all together, selects exactly the results with these fields."""
    async with api_client(tmp_path, ticks=2) as (_, api):
        items = (await api.ask("/api/results?limit=500"))["items"]
        failed = next(item for item in items if item["outcome"] == "failed")
        names = ("tick", "orchestrator", "pipeline", "model", "outcome", "reason")
        for filters in (*((name,) for name in names), names):
            params = {name: failed[name] for name in filters}
            body = (await api.ask("/api/results", params={**params, "limit": "500"}))["items"]
            assert body == [item for item in items if all(item[name] == failed[name] for name in filters)]
            assert failed in body
        starts = sorted(item["started_at"] for item in items)
        since, until = starts[2], starts[-2]
        for route in ("/api/results", "/api/ticks"):
            everything = (await api.ask(f"{route}?limit=500"))["items"]
            body = (await api.ask(f"{route}?limit=500&since={since!r}&until={until!r}"))["items"]
            assert body == [item for item in everything if since <= item["started_at"] < until]
            assert (await api.ask(f"{route}?until=1h"))["items"] == []
        filtered = await api.ask("/api/orchestrators?pipeline=llm")
        capabilities = [row for orchestrator in filtered["items"] for row in orchestrator["capabilities"]]
        assert {row["pipeline"] for row in capabilities} == {"llm"}
        assert (await api.ask("/api/orchestrators?pipeline=none"))["items"] == []


async def test_what_is_only_skipped_is_listed_with_the_reason(tmp_path: Any) -> None:
    """Orchestrators without a result stand among the others, by address and page by page, as each alone shows them."""
    async with api_client(tmp_path) as (tester, api):
        tested = {item["orchestrator"] for item in (await api.ask("/api/orchestrators"))["items"]}
        addresses = [f"0x{number:040x}" for number in (0, 1)] + ["0x" + "f" * 40]
        capability = Capability("upscale", "m")
        skips = [
            Skip(addresses[0], "https://a.example:8935", "", "", "excluded"),
            Skip(addresses[1], "https://b.example:8935", "upscale", "m", "paused", capability, note="moved"),
            Skip(addresses[2], "https://c.example:8935", "upscale", "m", "disabled", capability),
        ]
        await tester.daemon.coordinator.planner.skips.record(skips, tester.daemon.coordinator.reports[-1].started_at)
        items = (await api.ask("/api/orchestrators"))["items"]
        assert [item["orchestrator"] for item in items] == sorted({*tested, *addresses})
        only = {item["orchestrator"]: item for item in items if not item["capabilities"]}
        assert {address: item["skipped"][0]["reason"] for address, item in only.items()} == dict(
            zip(addresses, ("excluded", "paused", "disabled"), strict=True)
        )
        assert only[addresses[1]]["skipped"][0]["note"] == "moved"
        for limit in (1, 2, 500):
            pages = await api.pages(f"/api/orchestrators?limit={limit}")
            assert [item for page in pages for item in page] == items
        assert await api.ask(f"/api/orchestrators/{addresses[0]}") == only[addresses[0]]
        of_pipeline = (await api.ask("/api/orchestrators?pipeline=upscale"))["items"]
        assert [item["orchestrator"] for item in of_pipeline] == addresses[1:]


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
    ("/api/results?since=yesterday", 400, "since"),
    ("/api/ticks?until=2026-13-01", 400, "until"),
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


async def test_a_bad_request_gets_one_message_that_names_the_parameter(tmp_path: Any) -> None:
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
                body = await answer.json()
                assert list(body) == ["error"]
        for text in ("%ED%A0%80", "%FF%FE", "%F0%9F%A6%8A", "%27%20OR%201=1--"):
            async with api.session.get(f"{api.base}/api/results?model={text}") as answer:
                assert answer.status in (200, 400)
            async with api.session.get(f"{api.base}/api/results/{text}") as answer:
                assert answer.status in (400, 404)


async def test_a_tick_is_started_with_the_token(tmp_path: Any) -> None:
    """202 and a tick with trigger `api`; 409 while it runs; 401 for no, a wrong or an unfit token."""
    async with (
        api_client(tmp_path, ticks=0, server={"host": "127.0.0.1", "port": 0, "admin_token": TOKEN}) as (
            tester,
            api,
        ),
        tester.serving(),
    ):
        for header in ("", "Bearer wrong", TOKEN, f"Basic {TOKEN}", "Bearer ", "Bearer é"):
            headers = {"Authorization": header} if header else {}
            body = await api.ask("/api/ticks", method="POST", expect=401, headers=headers)
            assert "token" in body["error"]
            assert TOKEN not in body["error"]
        authorized = {"Authorization": f"Bearer {TOKEN}"}
        assert await api.ask("/api/ticks", method="POST", expect=202, headers=authorized) == {"state": "accepted"}
        body = await api.ask("/api/ticks", method="POST", expect=409, headers=authorized)
        assert "already running" in body["error"]

        async def tick_ended() -> bool:
            progress = (await api.ask("/api/status"))["progress"]
            return progress is not None and not progress["running"]

        await until(tick_ended, "the tick ends", timeout_s=100)
        body = await api.ask("/api/ticks/last")
        assert (body["trigger"], body["state"]) == ("api", "finished")


async def test_no_second_tick_is_accepted_while_one_is_about_to_run(tmp_path: Any) -> None:
    """A tick that first takes over a changed configuration, which may take a while, is already running."""
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
            authorized = {"Authorization": f"Bearer {TOKEN}"}
            await api.ask("/api/ticks", method="POST", expect=202, headers=authorized)
            await begins.wait()
            await api.ask("/api/ticks", method="POST", expect=409, headers=authorized)
            taken_over.set()


class TicksReadBeforeEnd(Ticks):
    """Ticks whose state is read just before their end is recorded."""

    def __init__(self, database: Database, api: ApiClient) -> None:
        super().__init__(database)
        self.api = api
        self.ran: list[bool] = []

    async def finish(self, tick: str, state: str, finished_at: float, report: dict[str, Any]) -> None:
        """Read whether it runs, and record its end."""
        self.ran.append((await self.api.ask("/api/status"))["progress"]["running"])
        await super().finish(tick, state, finished_at, report)


async def test_a_tick_that_is_reported_as_over_is_recorded(tmp_path: Any) -> None:
    """A client that waits for its end and then reads it sees the final report."""
    async with api_client(tmp_path, ticks=0) as (tester, api):
        tester.daemon.coordinator.ticks = ticks = TicksReadBeforeEnd(tester.daemon.database, api)
        report = await tester.tick()
        assert ticks.ran == [True]
        assert not (await api.ask("/api/status"))["progress"]["running"]
        body = await api.ask("/api/ticks/last")
        assert (body["state"], body["finished_at"]) == (report.state, report.finished_at)


async def test_without_a_token_no_tick_is_started(tmp_path: Any) -> None:
    """The route is off, and its answer names the setting that turns it on."""
    async with api_client(tmp_path, ticks=0) as (_, api):
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            body = await api.ask("/api/ticks", method="POST", expect=404, headers=headers)
            assert "server.admin_token" in body["error"]


async def test_a_running_tick_is_shown_as_it_goes(tmp_path: Any) -> None:
    """While jobs are in flight, the status names them and the tick has its report so far."""
    async with api_client(tmp_path, ticks=0) as (tester, api):
        ids_in_flight: set[str] = set()
        running = asyncio.create_task(tester.tick())
        while not running.done():
            status = await api.ask("/api/status")
            if status["progress"] and status["progress"]["in_flight"]:
                ids_in_flight |= {item["id"] for item in status["progress"]["in_flight"]}
            for tick in (await api.ask("/api/ticks"))["items"]:
                await api.ask(f"/api/ticks/{tick['id']}")
        assert ids_in_flight & {row.id for row in await tester.results()}


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
        body = (await api.ask("/api/received"))["items"]
        assert [item["stat"]["model"] for item in body] == ["m"]
        assert [item["model"] for item in (await api.ask("/api/outbox"))["items"]] == ["m"]
