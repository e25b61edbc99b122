"""The API: what the pages show, as JSON for programs, and the order to begin a tick."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson
import structlog
from aiohttp import web

from jobtester import __version__
from jobtester.domain.reasons import Outcome
from jobtester.store.outbox import STATES
from jobtester.store.queries import ResultFilters
from jobtester.web import shapes
from jobtester.web.bearer import has_token
from jobtester.web.context import CONTEXT, WebContext
from jobtester.web.openapi import DOCUMENT
from jobtester.web.query_params import QueryError, parse_address, parse_query

log = structlog.get_logger()
routes = web.RouteTableDef()

T = TypeVar("T")
PREFIX = "/api/"
_RECENT = 12
_MOST_RECENT = 200
_SLOWEST = 10


@routes.get("/api/openapi.json")
async def document(request: web.Request) -> web.Response:
    """Describe this API."""
    parse_query(request.query, ())
    return _json(DOCUMENT)


@routes.get("/api/status")
async def status(request: web.Request) -> web.Response:
    """Give the running tick's progress, the next one, the peers and the outbox's counts."""
    parse_query(request.query, ())
    parts = request.app[CONTEXT]
    return _json(
        {
            "version": __version__,
            "region": parts.settings().region,
            "simulated": parts.simulated,
            "next_tick_at": parts.next_tick_at(),
            "progress": _progress(parts),
            "peers": parts.health.peers(),
            "outbox": await parts.outbox.counts(),
        }
    )


@routes.get("/api/orchestrators")
async def orchestrators(request: web.Request) -> web.Response:
    """Give every orchestrator with its capabilities and their newest results, by address."""
    given = parse_query(request.query, ("limit", "cursor", "pipeline"))
    after, limit = given.address("cursor"), given.limit()
    cells = await request.app[CONTEXT].queries.capabilities(
        after=after, limit=limit + 1, pipeline=given.text("pipeline"), recent=_RECENT
    )
    found = await asyncio.to_thread(shapes.orchestrators, cells)
    return await _page(found, limit, lambda one: str(one["orchestrator"]), lambda one: one)


@routes.get("/api/orchestrators/{address}")
async def orchestrator(request: web.Request) -> web.Response:
    """Give one orchestrator with each capability's history."""
    parse_query(request.query, ())
    address = parse_address(request.match_info["address"], "address")
    found = shapes.orchestrators(await request.app[CONTEXT].queries.matrix(address, recent=_MOST_RECENT))
    if not found:
        raise web.HTTPNotFound(text="no result of this orchestrator is kept")
    return _json(found[0])


@routes.get("/api/results")
async def results(request: web.Request) -> web.Response:
    """Give results, newest first."""
    given = parse_query(
        request.query, ("limit", "cursor", "tick", "orchestrator", "pipeline", "model", "outcome", "reason")
    )
    filters = ResultFilters(
        tick=given.text("tick"),
        orchestrator=given.address("orchestrator"),
        pipeline=given.text("pipeline"),
        model=given.text("model"),
        outcome=given.outcome(),
        reason=given.reason(),
    )
    limit = given.limit()
    rows = await request.app[CONTEXT].queries.page(filters, before=given.cursor(), limit=limit + 1)
    return await _page(rows, limit, lambda row: str(row.seq), shapes.result)


@routes.get("/api/results/{id}")
async def result(request: web.Request) -> web.Response:
    """Give one result with its evidence, request and answer."""
    parse_query(request.query, ())
    row = await request.app[CONTEXT].queries.get(_id(request))
    if row is None:
        raise web.HTTPNotFound(text="no result of this id is kept")
    return _json(shapes.whole_result(row))


@routes.get("/api/ticks")
async def ticks(request: web.Request) -> web.Response:
    """Give ticks with their job reports, newest first."""
    given = parse_query(request.query, ("limit", "cursor"))
    limit, parts = given.limit(), request.app[CONTEXT]
    cursor, before = given.text("cursor"), None
    if cursor:
        last = await parts.ticks.get(cursor)
        if last is None:
            raise QueryError("cursor: the tick that it names is not kept; begin anew")
        before = last.started_at
    found = await parts.ticks.newest(limit + 1, before)
    running = parts.progress()
    return await _page(found, limit, lambda one: str(one.id), lambda one: shapes.tick(one, running))


@routes.get("/api/ticks/{id}")
async def tick(request: web.Request) -> web.Response:
    """Give one tick with its job report and slowest results; `last` names the newest."""
    parse_query(request.query, ())
    parts = request.app[CONTEXT]
    found = await parts.ticks.get(_id(request))
    if found is None:
        raise web.HTTPNotFound(text="no tick of this id is kept")
    slowest = [
        {"id": one, "orchestrator": address, "pipeline": pipeline, "model": model, "round_trip_s": took}
        for one, address, pipeline, model, took in await parts.queries.slowest(found.id, _SLOWEST)
    ]
    return _json({**shapes.tick(found, parts.progress()), "slowest": slowest})


@routes.post("/api/ticks")
async def start_tick(request: web.Request) -> web.Response:
    """Begin a tick now, for whoever has the admin token."""
    parts = request.app[CONTEXT]
    token = parts.settings().server.admin_token
    if token is None:
        raise web.HTTPNotFound(text="ticks cannot be started from here: server.admin_token is not set")
    if not has_token(request, token):
        raise web.HTTPUnauthorized(
            text="Authorization: the admin token is missing or wrong", headers={"WWW-Authenticate": "Bearer"}
        )
    parse_query(request.query, ())
    if not parts.start_tick("api"):
        raise web.HTTPConflict(text="a tick runs already, or the tester is stopping")
    log.info("tick_asked_for", by=request.remote)
    return _json({"state": "accepted"}, status=202)


@routes.get("/api/outbox")
async def outbox(request: web.Request) -> web.Response:
    """Give what is on its way to the Leaderboard, oldest first; without a state, all that is not delivered."""
    given = parse_query(request.query, ("limit", "cursor", "state"))
    limit, parts = given.limit(), request.app[CONTEXT]
    state = given.one_of("state", STATES)
    found = await parts.outbox.entries((state,) if state else (), after=given.cursor() or 0, limit=limit + 1)
    counts = await parts.outbox.counts()
    return await _page(found, limit, lambda one: str(one.seq), shapes.entry, counts=counts)


@routes.get("/api/received")
async def received(request: web.Request) -> web.Response:
    """Give results of other testers, newest first."""
    given = parse_query(request.query, ("limit", "cursor"))
    limit = given.limit()
    found = await request.app[CONTEXT].queries.external_results(before=given.cursor(), limit=limit + 1)
    return await _page(found, limit, lambda one: str(one.seq), shapes.forwarded)


def problem(status: int, message: str) -> web.Response:
    """Answer with one clear message."""
    return _json({"error": message}, status=status)


def _progress(parts: WebContext) -> dict[str, Any] | None:
    running = parts.progress()
    if running is None:
        return None
    report = running.report
    return {
        "running": report.finished_at is None,
        "tick": report.tick,
        "planned": report.planned,
        "settled": report.settled,
        "outcomes": {one.value: report.outcomes[one] for one in Outcome},
        "in_air": [
            {
                "id": job.id,
                "orchestrator": job.orchestrator.address,
                "pipeline": job.pipeline,
                "model": job.model,
                "gateway": gateway,
                "sent_at": sent_at,
            }
            for job, gateway, sent_at in list(running.in_flight.values())
        ],
    }


def _id(request: web.Request) -> str:
    given = request.match_info["id"]
    if len(given) > 200 or not given.isprintable():
        raise QueryError("id: not an id")
    return given


async def _page(
    found: Sequence[T], limit: int, key: Callable[[T], str], shape: Callable[[T], Any], **more: Any
) -> web.Response:
    """Give a page of one more than was asked for, which tells whether another page follows."""
    shown = found[:limit]
    following = key(shown[-1]) if len(found) > limit else None
    return _answer(
        await asyncio.to_thread(
            lambda: orjson.dumps({"items": [shape(one) for one in shown], "next": following, **more})
        )
    )


def _json(content: Any, status: int = 200) -> web.Response:
    return _answer(orjson.dumps(content), status)


def _answer(body: bytes, status: int = 200) -> web.Response:
    return web.Response(
        body=body + b"\n", status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
