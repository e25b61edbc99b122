"""Serve the page of one orchestrator, the feed of its failures and recoveries, and its badge."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from markupsafe import Markup

from jobtester.domain.history import Observation, Summary, find_price_changes, group_by_time, summarize
from jobtester.domain.plan import SKIP_REASONS
from jobtester.domain.reasons import Outcome
from jobtester.domain.runner_status import STATES
from jobtester.store.queries import CapabilityRow, ResultFilters
from jobtester.web.charts import LEGEND_MARKS, draw_latency
from jobtester.web.context import CONTEXT
from jobtester.web.feeds import draw_badge, write_feed
from jobtester.web.history_charts import draw_bars, draw_prices
from jobtester.web.rendering import (
    PAGE_SIZE,
    Span,
    build_older_link,
    find_base,
    parse_number,
    render,
    render_missing,
)

routes = web.RouteTableDef()

_HOUR_S, _DAY_S = 3600.0, 86_400.0
_MAX_PLOTTED = 100  # as many as the chart can tell apart
# The windows of the page, each with the width of its bars.
_WINDOWS = {"24h": (_DAY_S, _HOUR_S), "7d": (7 * _DAY_S, _HOUR_S), "30d": (30 * _DAY_S, _DAY_S)}
_FEED_S = 30 * _DAY_S


@dataclass(frozen=True, slots=True)
class CapabilityView:
    """A capability as its card shows it."""

    row: CapabilityRow
    chart: Markup
    summary: Summary
    prices: Sequence[tuple[float, int]]
    price_chart: Markup


@routes.get("/o/{address}.atom")
async def send_feed(request: web.Request) -> web.Response:
    """Send the Atom feed of an orchestrator's failures and recoveries in the last 30 days."""
    context = request.app[CONTEXT]
    address = request.match_info["address"].lower()
    if not await _is_known(request, address):
        return await _render_unknown(request)
    now = time.time()
    events = await context.stores.history.events(address, now - _FEED_S)
    base, region = find_base(request), context.settings().region
    body = await asyncio.to_thread(write_feed, events, address, base=base, region=region, now=now)
    return web.Response(body=body, content_type="application/atom+xml", charset="utf-8")


@routes.get("/o/{address}.svg")
async def send_badge(request: web.Request) -> web.Response:
    """Send a small picture of an orchestrator's success rate in the last 24 hours."""
    context = request.app[CONTEXT]
    address = request.match_info["address"].lower()
    if not await _is_known(request, address):
        return await _render_unknown(request)
    observations = await context.stores.history.observations(address, time.time() - _DAY_S)
    text = draw_badge(context.settings().region, summarize(observations))
    return web.Response(text=text, content_type="image/svg+xml", headers={"Cache-Control": "max-age=60"})


@routes.get("/o/{address}")
async def show_orchestrator(request: web.Request) -> web.Response:
    """Show one orchestrator: its rates over time, each capability, what is skipped, and its results."""
    stores = request.app[CONTEXT].stores
    address = request.match_info["address"].lower()
    capabilities = await stores.queries.matrix(address, recent=_MAX_PLOTTED)
    runners, skips = await stores.live_runners.read(address), await stores.skips.current(address)
    if not capabilities and not runners and not skips:
        return await _render_unknown(request)
    window = request.query.get("window", "")
    window = window if window in _WINDOWS else "24h"
    now = time.time()
    observations = await stores.history.observations(address, now - _WINDOWS[window][0])
    span, public_url = Span.from_query(request.query), request.app[CONTEXT].settings().server.public_url
    outcome = request.query.get("outcome", "")
    filters = {"outcome": outcome if outcome in list(Outcome) else "", **span.query}
    results = await stores.queries.page(
        ResultFilters(orchestrator=address, outcome=filters["outcome"], since=span.since, until=span.until),
        before=parse_number(request.query.get("before")),
        limit=PAGE_SIZE,
    )
    # In a thread: thousands of results, and hundreds of points for each of many capabilities.
    history = await asyncio.to_thread(_summarize_window, observations, capabilities, window, now)
    return await render(
        request,
        "orchestrator.html",
        {"address": address, "results": results, "older": build_older_link(results, {"window": window, **filters}),
         "marks": LEGEND_MARKS, "base": public_url or "", "runners": runners, "runner_states": STATES, "skips": skips,
         "skip_reasons": SKIP_REASONS, "windows": list(_WINDOWS), "window": window, "span": span, "filters": filters,
         **history},
    )  # fmt: skip


async def _is_known(request: web.Request, address: str) -> bool:
    stores = request.app[CONTEXT].stores
    return bool(
        await stores.queries.matrix(address, recent=1)
        or await stores.live_runners.read(address)
        or await stores.skips.current(address, limit=1)
    )


async def _render_unknown(request: web.Request) -> web.Response:
    return await render_missing(
        request,
        "This orchestrator has no recorded result.",
        "The address may be mistyped, or no gateway may know it.",
    )


def _summarize_window(
    observations: Sequence[Observation], capabilities: Sequence[CapabilityRow], window: str, now: float
) -> dict[str, Any]:
    """Return what the page shows of the chosen window."""
    length_s, step_s = _WINDOWS[window]
    by_capability: dict[tuple[str, str, str, str], list[Observation]] = defaultdict(list)
    for observation in observations:
        by_capability[observation.capability].append(observation)
    views = []
    for row in capabilities:
        own = by_capability[row.service_uri, row.pipeline, row.model, row.kind]
        prices = find_price_changes(own)
        price_chart = draw_prices(prices, now - length_s, now) if len(prices) > 1 else Markup("")
        views.append(CapabilityView(row, draw_latency(row.recent), summarize(own), prices, price_chart))
    buckets = group_by_time(observations, since=now - length_s, until=now, step_s=step_s)
    return {
        "capabilities": views,
        "summary": summarize(observations),
        "by_state": [
            (name, summarize(observation for observation in observations if bool(observation.warm) is is_warm))
            for name, is_warm in (("warm", True), ("cold", False))
        ],
        "bars": draw_bars(buckets, step_s, window),
        "step": "hour" if step_s == _HOUR_S else "day",
    }
