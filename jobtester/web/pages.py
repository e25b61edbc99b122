"""Render the status pages, which server-sent events keep current and which work without JavaScript."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp_jinja2
import jinja2
from aiohttp import web

from jobtester import __version__
from jobtester.domain.runner_status import STATES
from jobtester.errors import CrashBoundary
from jobtester.store.queries import CapabilityRow, ResultFilters
from jobtester.store.results import ResultRow
from jobtester.web.charts import LEGEND_MARKS, draw_latency, draw_timeline
from jobtester.web.context import CLOSING, CONTEXT, WebContext
from jobtester.web.schemas import LiveSchema, ProgressSchema
from jobtester.web.template_filters import FILTERS, show_control_characters

routes = web.RouteTableDef()

_HERE = Path(__file__).parent
# Nothing inline and nothing from elsewhere: a hostile model name that gets past the templates still cannot run.
_CONTENT_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; media-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EVENT_INTERVAL_S = 1.0
_PAGE_SIZE = 50
_MAX_SHOWN_IN_FLIGHT = 4  # what fits into the box on the overview
MISSING_ADVICE = "It may be older than store.keep allows, or the address may be mistyped."
KEEPALIVE_S = web.AppKey("keepalive_s", float)


def add_pages(app: web.Application) -> None:
    """Add the pages, their templates and static files to an application."""
    aiohttp_jinja2.setup(
        app,
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        filters=FILTERS,
        # Texts from outside may hold control characters; this is the one place that every value passes.
        finalize=show_control_characters,
    )
    app.router.add_routes(routes)
    app.router.add_static("/static/", _HERE / "static", append_version=True)
    app[aiohttp_jinja2.static_root_key] = "/static/"


@routes.get("/")
async def show_overview(request: web.Request) -> web.Response:
    """Show the running tick, the next one, the peers, and every orchestrator × pipeline."""
    context = request.app[CONTEXT]
    capabilities, ticks = await context.stores.queries.matrix(), await context.stores.ticks.newest(10)
    pipelines = sorted({row.pipeline for row in capabilities})
    rows: dict[tuple[str, str], dict[str, list[CapabilityRow]]] = {}
    for row in capabilities:
        rows.setdefault((row.orchestrator, row.service_uri), {}).setdefault(row.pipeline, []).append(row)
    live = _read_progress(context)
    # After a restart the newest stored tick stands in until one has run.
    stored = ProgressSchema.from_row(ticks[0]) if ticks and ticks[0].report else ProgressSchema()
    return await render(
        request,
        "overview.html",
        {"progress": live.progress or stored, "next_tick_at": live.next_tick_at, "peers": context.health.peers(),
         "pipelines": pipelines, "rows": rows, "ticks": ticks},
    )  # fmt: skip


@routes.get("/o/{address}")
async def show_orchestrator(request: web.Request) -> web.Response:
    """Show one orchestrator: each capability's history, and its newest results."""
    stores = request.app[CONTEXT].stores
    address = request.match_info["address"].lower()
    # As many as the chart can tell apart.
    capabilities = await stores.queries.matrix(address, recent=200)
    runners = await stores.live_runners.read(address)
    if not capabilities and not runners:
        return await render_missing(
            request,
            "This orchestrator has no recorded result.",
            "The address may be mistyped, no gateway may know it, or none of its jobs has been tested yet.",
        )
    before = _parse_number(request.query.get("before"))
    results = await stores.queries.page(ResultFilters(orchestrator=address), before=before, limit=_PAGE_SIZE)
    # In a thread: hundreds of points for each of many capabilities.
    plotted = await asyncio.to_thread(lambda: [(row, draw_latency(row.recent)) for row in capabilities])
    return await render(
        request,
        "orchestrator.html",
        {"address": address, "capabilities": plotted, "results": results, "older": _build_older_link(results),
         "marks": LEGEND_MARKS, "runners": runners, "runner_states": STATES},
    )  # fmt: skip


@routes.get("/t/{id}")
async def show_tick(request: web.Request) -> web.Response:
    """Show one tick: its report, its slowest jobs, what failed and why, and when each gateway worked on what."""
    stores = request.app[CONTEXT].stores
    row = await stores.ticks.get(request.match_info["id"])
    if row is None:
        return await render_missing(request, "No tick has this address.", MISSING_ADVICE)
    filters = {name: request.query.get(name, "") for name in ("outcome", "reason")}
    before = _parse_number(request.query.get("before"))
    results = await stores.queries.page(ResultFilters(tick=row.id, **filters), before=before, limit=_PAGE_SIZE)
    jobs = await stores.queries.timeline(row.id)
    return await render(
        request,
        "tick.html",
        {"tick": row, "report": row.report, "slowest": await stores.queries.slowest(row.id), "results": results,
         "older": _build_older_link(results, filters), "filters": filters,
         "timeline": await asyncio.to_thread(draw_timeline, jobs)},
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


async def render_missing(request: web.Request, problem: str, advice: str) -> web.Response:
    """Return a 404 page. It does not repeat what was asked for, which anybody can put into a link."""
    return await render(request, "missing.html", {"problem": problem, "advice": advice}, status=404)


async def render(request: web.Request, template: str, values: Mapping[str, Any], *, status: int = 200) -> web.Response:
    """Render a page in a thread: one with a hundred orchestrators takes longer than the event loop may be held up."""
    context = request.app[CONTEXT]
    shared = {"version": __version__, "simulated": context.simulated, "region": context.settings().region,
              "path": request.path, "config_problem": context.health.config_problem()}  # fmt: skip
    text = await asyncio.to_thread(aiohttp_jinja2.render_string, template, request, {**shared, **values})
    response = web.Response(
        text=text, status=status, content_type="text/html", headers={"Content-Security-Policy": _CONTENT_POLICY}
    )
    response.enable_compression()
    return response


def _parse_number(text: str | None) -> int | None:
    # Pages are lenient where the API is strict: who edits an address by hand sees the first page.
    return int(text) if text and text.isdecimal() and len(text) < 18 else None


def _build_older_link(results: Sequence[ResultRow], filters: Mapping[str, str] | None = None) -> str:
    """Return the address of the next page under the same filters; empty if this page is not full."""
    if len(results) < _PAGE_SIZE:
        return ""
    active = {name: value for name, value in (filters or {}).items() if value}
    return f"?{urlencode({**active, 'before': results[-1].seq})}#results"
