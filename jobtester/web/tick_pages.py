"""Serve the list of ticks, and the page of each."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from aiohttp import web

from jobtester.domain.plan import SKIP_REASONS
from jobtester.store.queries import ResultFilters
from jobtester.web.charts import draw_timeline
from jobtester.web.context import CONTEXT
from jobtester.web.rendering import (
    MISSING_ADVICE,
    PAGE_SIZE,
    Span,
    build_older_link,
    parse_number,
    render,
    render_missing,
)

routes = web.RouteTableDef()


@routes.get("/ticks")
async def list_ticks(request: web.Request) -> web.Response:
    """List all ticks, the newest first."""
    span = Span.from_query(request.query)
    ticks = await request.app[CONTEXT].stores.ticks.newest(PAGE_SIZE + 1, span.until, since=span.since)
    shown, older = ticks[:PAGE_SIZE], ""
    if len(ticks) > PAGE_SIZE:
        # With all digits, so that no tick is lost between two pages.
        query = {"since": span.since_text, "until": repr(shown[-1].started_at)}
        older = "?" + urlencode({name: value for name, value in query.items() if value})
    return await render(request, "ticks.html", {"ticks": shown, "older": older, "span": span})


@routes.get("/t/{id}")
async def show_tick(request: web.Request) -> web.Response:
    """Show one tick: its report, its slowest jobs, what failed and why, and when each gateway worked on what."""
    stores = request.app[CONTEXT].stores
    row = await stores.ticks.get(request.match_info["id"])
    if row is None:
        return await render_missing(request, "No tick has this address.", MISSING_ADVICE)
    filters = {name: request.query.get(name, "") for name in ("outcome", "reason")}
    before = parse_number(request.query.get("before"))
    conditions = ResultFilters(tick=row.id, outcome=filters["outcome"], reason=filters["reason"])
    results = await stores.queries.page(conditions, before=before, limit=PAGE_SIZE)
    jobs = await stores.queries.timeline(row.id)
    return await render(
        request,
        "tick.html",
        {"tick": row, "report": row.report, "slowest": await stores.queries.slowest(row.id), "results": results,
         "older": build_older_link(results, filters), "filters": filters,
         "skips": await stores.skips.at(row.started_at), "skip_reasons": SKIP_REASONS,
         "delivery": await stores.queries.delivery(row.id),
         "timeline": await asyncio.to_thread(draw_timeline, jobs)},
    )  # fmt: skip
