"""Render the status pages, which server-sent events keep current and which work without JavaScript."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import aiohttp_jinja2
import jinja2
from aiohttp import web

from jobtester.crash_boundary import CrashBoundary
from jobtester.domain.plan import SKIP_REASONS
from jobtester.errors import StoreError
from jobtester.web import orchestrator_pages, tick_pages
from jobtester.web.context import CLOSING, CONTEXT, WebContext
from jobtester.web.overview import STATES, Query, arrange
from jobtester.web.rendering import parse_number, render
from jobtester.web.schemas import LiveSchema, ProgressSchema
from jobtester.web.template_filters import FILTERS, show_control_characters

routes = web.RouteTableDef()

_HERE = Path(__file__).parent
_STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EVENT_INTERVAL_S = 1.0
_ROWS = 100  # orchestrators on a page of the overview
_MAX_SKIPS = 5_000
_MAX_QUERY = 200
_MAX_SHOWN_IN_FLIGHT = 4  # what fits into the box on the overview
KEEPALIVE_S = web.AppKey("keepalive_s", float)
PREPARE_AFTER_S = web.AppKey("prepare_after_s", float)  # the daemon starts first


def add_pages(app: web.Application) -> None:
    """Add the pages, their templates and static files to an application."""
    aiohttp_jinja2.setup(
        app,
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,  # an update of the files must not change half of a running program
        filters=FILTERS,
        # Texts from outside may hold control characters; this is the one place that every value passes.
        finalize=show_control_characters,
    )
    for table in (routes, orchestrator_pages.routes, tick_pages.routes):
        app.router.add_routes(table)
    app.router.add_static("/static/", _HERE / "static", append_version=True)
    app[aiohttp_jinja2.static_root_key] = "/static/"
    app.cleanup_ctx.append(_prepare_in_background)


async def _prepare_in_background(app: web.Application) -> AsyncIterator[None]:
    """Do at the start what the first visitor would wait for: compile the templates, and read the overview's points."""
    context = app[CONTEXT]

    async def prepare() -> None:
        await asyncio.sleep(app[PREPARE_AFTER_S])
        with (
            contextlib.suppress(StoreError),  # a page says so when it is asked for
            CrashBoundary(context.metrics.count_internal_error).unit("pages", expected=(StoreError,)),
        ):
            environment = aiohttp_jinja2.get_env(app)
            for name in environment.list_templates():
                await asyncio.to_thread(environment.get_template, name)
            await context.stores.queries.matrix()

    task = asyncio.create_task(prepare(), name="prepare-pages")
    yield
    task.cancel()
    await asyncio.wait({task})


@routes.get("/")
async def show_overview(request: web.Request) -> web.Response:
    """Show the newest tick, the next one, the peers, and every orchestrator × pipeline, the worst first."""
    context = request.app[CONTEXT]
    stores = context.stores
    capabilities, skips = await stores.queries.matrix(), await stores.skips.current(limit=_MAX_SKIPS)
    ticks = await stores.ticks.newest(10)
    query = Query(request.query.get("q", "")[:_MAX_QUERY], request.query.get("outcome", "")[:_MAX_QUERY])
    overview = await asyncio.to_thread(arrange, capabilities, skips, query)
    page = max(1, parse_number(request.query.get("page")) or 1)
    first = (page - 1) * _ROWS
    more = {"q": query.text, "outcome": query.outcome, "page": str(page + 1)}
    live = _read_progress(context)
    # After a restart the newest stored tick stands in until one has run.
    stored = ProgressSchema.from_row(ticks[0]) if ticks and ticks[0].report else ProgressSchema()
    return await render(
        request,
        "overview.html",
        {"progress": live.progress or stored, "next_tick_at": live.next_tick_at, "peers": context.health.peers(),
         "overview": overview, "rows": overview.rows[first : first + _ROWS], "first": first, "query": query,
         "pauses": [pause for pause in context.settings().pause if pause.is_active(datetime.now(UTC))],
         "skip_reasons": SKIP_REASONS, "states": STATES, "ticks": ticks, "is_empty": not capabilities and not skips,
         "more": f"?{urlencode({name: value for name, value in more.items() if value})}#matrix"
         if len(overview.rows) > first + _ROWS else ""},
    )  # fmt: skip


@routes.get("/outbox")
async def show_outbox(request: web.Request) -> web.Response:
    """Show what has not reached the Leaderboard, and why."""
    stores = request.app[CONTEXT].stores
    return await render(
        request,
        "outbox.html",
        {"counts": await stores.outbox.counts(), "entries": await stores.outbox.entries(limit=200),
         "external_results": await stores.queries.newest_external(), "now": time.time()},
    )  # fmt: skip


@routes.get("/live")
async def stream_progress(request: web.Request) -> web.StreamResponse:
    """Stream the newest tick's progress once a second while it changes, and every KEEPALIVE_S while it does not.

    The headers and the keep-alive are for proxies in front, which hold back what comes and close what is silent.
    """
    context = request.app[CONTEXT]
    response = web.StreamResponse(headers=_STREAM_HEADERS)
    await response.prepare(request)
    # The response has begun, so an internal error can only end it: the page connects again by itself.
    with CrashBoundary(context.metrics.count_internal_error).unit(
        "request", expected=(ConnectionError,), path=request.path
    ):
        await _write_events(request.app, response)
    return response


async def _write_events(app: web.Application, response: web.StreamResponse) -> None:
    closing = app[CLOSING]
    last, sent_at = b"", 0.0
    while not closing.is_set():
        event = _read_progress(app[CONTEXT]).to_json()
        if event != last or time.monotonic() - sent_at >= app[KEEPALIVE_S]:
            try:
                await response.write(b"data: " + event + b"\n\n")
            except ConnectionError:
                break  # the page was closed
            last, sent_at = event, time.monotonic()
        try:
            async with asyncio.timeout(_EVENT_INTERVAL_S):
                await closing.wait()
        except TimeoutError:
            continue


def _read_progress(context: WebContext) -> LiveSchema:
    progress = context.progress()
    return LiveSchema(
        next_tick_at=context.next_tick_at(),
        progress=None if progress is None else ProgressSchema.from_progress(progress, _MAX_SHOWN_IN_FLIGHT),
    )
