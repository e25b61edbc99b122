"""Serve results, ticks and the outbox as JSON for programs, and the order to start a tick."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

import orjson
import structlog
from aiohttp import web

from jobtester import __version__
from jobtester.domain.tick_report import TickReport
from jobtester.store.queries import ResultFilters
from jobtester.web.context import CONTEXT, WebContext
from jobtester.web.openapi import ApiRoutes
from jobtester.web.query_params import (
    OrchestratorPageParams,
    OutboxPageParams,
    QueryError,
    QueryParams,
    ResultPageParams,
    SequencePageParams,
    TickPageParams,
    parse_address,
)
from jobtester.web.requests import has_bearer_token
from jobtester.web.result_pages import describe_result
from jobtester.web.schemas import (
    AcceptedSchema,
    ErrorSchema,
    ExternalResultPageSchema,
    ExternalResultSchema,
    FullResultSchema,
    OpenApiSchema,
    OrchestratorPageSchema,
    OrchestratorSchema,
    OutboxEntrySchema,
    OutboxPageSchema,
    PeerSchema,
    ProgressSchema,
    ResultPageSchema,
    ResultSchema,
    Schema,
    StatusSchema,
    TickDetailSchema,
    TickPageSchema,
    TickSchema,
)

log = structlog.get_logger()
api = ApiRoutes()
routes = api.routes

RowT = TypeVar("RowT")
PREFIX = "/api/"
# The list of orchestrators is a summary; the history of one goes further back.
_RECENT = 12
_MAX_RECENT = 200
_SLOWEST = 10
_MAX_ID_LENGTH = 200


@api.get("/api/openapi.json", OpenApiSchema)
async def get_document(_: web.Request) -> web.Response:
    """Return this document."""
    return _build_response(_build_document())


@api.get("/api/status", StatusSchema)
async def get_status(request: web.Request) -> web.Response:
    """Return the running tick's progress, the next tick, the peers and the outbox's counts."""
    context = request.app[CONTEXT]
    progress = context.progress()
    return _build_json(
        StatusSchema(
            version=__version__,
            region=context.settings().region,
            simulated=context.simulated,
            next_tick_at=context.next_tick_at(),
            progress=None if progress is None else ProgressSchema.from_progress(progress),
            peers={name: PeerSchema.model_validate(check) for name, check in context.health.peers().items()},
            outbox=await context.stores.outbox.counts(),
        )
    )


@api.get_list("/api/orchestrators", OrchestratorPageSchema, OrchestratorPageParams)
async def list_orchestrators(request: web.Request, params: OrchestratorPageParams) -> web.Response:
    """Return orchestrators with their capabilities and newest results, and what is not tested, by address."""
    stores = request.app[CONTEXT].stores
    # One more than asked for: whether it is there tells `_build_page` whether another page follows. Each list has the
    # first addresses of its kind, so the first of both together are complete.
    limit = params.limit + 1
    rows = await stores.queries.capabilities(after=params.cursor, limit=limit, pipeline=params.pipeline, recent=_RECENT)
    skips = await stores.skips.current_after(params.cursor, limit, params.pipeline)
    items = OrchestratorSchema.read_groups(rows, await stores.live_runners.read(), skips)[:limit]
    return await _build_page(items, params.limit, lambda item: str(item["orchestrator"]), lambda item: item)


@api.get(
    "/api/orchestrators/{address}",
    OrchestratorSchema,
    path_parameter="Ethereum address, in any case",
    missing="the orchestrator has no recorded result and no live runner, and was not skipped",
)
async def get_orchestrator(request: web.Request) -> web.Response:
    """Return one orchestrator with the history of each capability."""
    try:
        address = parse_address(request.match_info["address"])
    except ValueError as error:
        raise QueryError(f"address: {error}") from error
    stores = request.app[CONTEXT].stores
    rows, runners = await stores.queries.matrix(address, recent=_MAX_RECENT), await stores.live_runners.read(address)
    skips = await stores.skips.current(address)
    if not rows and not runners and not skips:
        raise web.HTTPNotFound(text="this orchestrator has no recorded result and no live runner, and was not skipped")
    return _build_response(orjson.dumps(OrchestratorSchema.read_one(address, rows, runners, skips)))


@api.get_list("/api/results", ResultPageSchema, ResultPageParams)
async def list_results(request: web.Request, params: ResultPageParams) -> web.Response:
    """Return results, newest first."""
    filters = ResultFilters(**params.model_dump(exclude={"limit", "cursor"}))
    rows = await request.app[CONTEXT].stores.queries.page(filters, before=params.cursor, limit=params.limit + 1)
    return await _build_page(rows, params.limit, lambda row: str(row.seq), ResultSchema.read_fields)


@api.get(
    "/api/results/{id}",
    FullResultSchema,
    path_parameter="the result's id",
    missing="no result has this id",
)
async def get_result(request: web.Request) -> web.Response:
    """Return one result with its evidence, request and answer."""
    full = await request.app[CONTEXT].stores.full_results.get(_parse_id(request))
    if full is None:
        raise web.HTTPNotFound(text="no result has this id")
    return _build_json(await describe_result(request, full))


@api.get_list("/api/ticks", TickPageSchema, TickPageParams)
async def list_ticks(request: web.Request, params: TickPageParams) -> web.Response:
    """Return ticks with their job reports, newest first."""
    context = request.app[CONTEXT]
    # Ticks are paged by id and not by a number, since the id is what people know; its start is looked up here.
    before = params.until
    if params.cursor:
        last = await context.stores.ticks.get(params.cursor)
        if last is None:
            raise QueryError("cursor: the tick that it names is gone; start again from the first page")
        before = last.started_at
    rows = await context.stores.ticks.newest(params.limit + 1, before, since=params.since)
    running = _get_running_report(context)
    return await _build_page(rows, params.limit, lambda row: row.id, lambda row: TickSchema.read_fields(row, running))


@api.get(
    "/api/ticks/{id}",
    TickDetailSchema,
    path_parameter="the tick's id; `last` is the newest",
    missing="no tick has this id",
)
async def get_tick(request: web.Request) -> web.Response:
    """Return one tick with its job report and slowest results."""
    context = request.app[CONTEXT]
    row = await context.stores.ticks.get(_parse_id(request))
    if row is None:
        raise web.HTTPNotFound(text="no tick has this id")
    slowest = await context.stores.queries.slowest(row.id, _SLOWEST)
    return _build_json(TickDetailSchema.from_row(row, _get_running_report(context), slowest))


@routes.post("/api/ticks")
async def start_tick(request: web.Request) -> web.Response:
    """Start a tick now, for a caller with the admin token."""
    context = request.app[CONTEXT]
    token = context.settings().server.admin_token
    if token is None:
        raise web.HTTPNotFound(text="ticks cannot be started from here: server.admin_token is not set")
    # The token is checked first, so that somebody without it learns nothing about the parameters.
    if not has_bearer_token(request, token):
        raise web.HTTPUnauthorized(
            text="Authorization: the admin token is missing or wrong", headers={"WWW-Authenticate": "Bearer"}
        )
    QueryParams.from_query(request.query)
    if not context.start_tick("api"):
        raise web.HTTPConflict(text="a tick is already running, or the tester is stopping")
    log.info("tick_requested", by=request.remote)
    return _build_json(AcceptedSchema(), status=202)


@api.get_list("/api/outbox", OutboxPageSchema, OutboxPageParams)
async def list_outbox(request: web.Request, params: OutboxPageParams) -> web.Response:
    """Return stats on their way to the Leaderboard, oldest first."""
    stores = request.app[CONTEXT].stores
    states = (params.state,) if params.state else ()
    rows = await stores.outbox.entries(states, after=params.cursor or 0, limit=params.limit + 1)
    counts = await stores.outbox.counts()
    return await _build_page(rows, params.limit, lambda row: str(row.seq), OutboxEntrySchema.read_fields, counts=counts)


@api.get_list("/api/received", ExternalResultPageSchema, SequencePageParams)
async def list_received(request: web.Request, params: SequencePageParams) -> web.Response:
    """Return results of other testers, newest first."""
    rows = await request.app[CONTEXT].stores.queries.external_results(before=params.cursor, limit=params.limit + 1)
    return await _build_page(rows, params.limit, lambda row: str(row.seq), ExternalResultSchema.read_fields)


def build_error(status: int, message: str) -> web.Response:
    """Return an error with one clear message."""
    return _build_json(ErrorSchema(error=message), status=status)


@cache
def _build_document() -> bytes:
    return orjson.dumps(api.document())


def _get_running_report(context: WebContext) -> TickReport | None:
    progress = context.progress()
    return None if progress is None else progress.report


def _parse_id(request: web.Request) -> str:
    text = request.match_info["id"]
    if len(text) > _MAX_ID_LENGTH or not text.isprintable():
        raise QueryError("id: is not an id")
    return text


async def _build_page(
    rows: Sequence[RowT],
    limit: int,
    cursor: Callable[[RowT], str],
    values: Callable[[RowT], dict[str, Any]],
    **more: Any,
) -> web.Response:
    """Return a page of rows of which one more than `limit` was read: it tells whether another page follows."""
    shown = rows[:limit]
    following = cursor(shown[-1]) if len(rows) > limit else None

    def dump(items: Iterable[RowT]) -> bytes:
        return orjson.dumps({"items": [values(item) for item in items], "next": following, **more})

    # In a thread: hundreds of rows take longer to write than the event loop may be held up.
    return _build_response(await asyncio.to_thread(dump, shown))


def _build_json(content: Schema, status: int = 200) -> web.Response:
    return _build_response(content.to_json(), status)


def _build_response(body: bytes, status: int = 200) -> web.Response:
    return web.Response(
        body=body + b"\n", status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
