"""Status pages for people: rendered here, alive by server-sent events, whole without JavaScript."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp_jinja2
import jinja2
import orjson
from aiohttp import web

from jobtester import __version__
from jobtester.domain.reasons import Outcome
from jobtester.errors import CrashBoundary
from jobtester.store.queries import ResultFilters
from jobtester.store.results import ResultRow
from jobtester.store.ticks import TickRow
from jobtester.web.charts import SHAPES, latency, timeline
from jobtester.web.context import CONTEXT, WebContext
from jobtester.web.shapes import explained
from jobtester.web.template_filters import FILTERS, abbreviate, instant, shorten_address, show_control_characters

routes = web.RouteTableDef()

_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EVERY_S = 1.0
_ON_A_PAGE = 50
_DELETED = "It may be older than what store.keep lets stay, or the address may be mistyped."


def set_up(app: web.Application) -> None:
    """Give an application the templates and static files."""
    aiohttp_jinja2.setup(
        app,
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        filters=FILTERS,
        finalize=show_control_characters,
    )
    app.router.add_routes(routes)
    app.router.add_static("/static/", _HERE / "static", append_version=True)
    app[aiohttp_jinja2.static_root_key] = "/static/"


@routes.get("/")
async def overview(request: web.Request) -> web.Response:
    """Show the running tick, the next one, the peers, and every orchestrator × pipeline."""
    parts = request.app[CONTEXT]
    cells, ticks = await parts.queries.matrix(), await parts.ticks.newest(10)
    pipelines = sorted({cell.pipeline for cell in cells})
    rows: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for cell in cells:
        rows.setdefault((cell.orchestrator, cell.service_uri), {}).setdefault(cell.pipeline, []).append(cell)
    return await _page(
        request,
        "overview.html",
        {"progress": _newest(progress(parts), ticks), "peers": parts.health.peers(), "pipelines": pipelines,
         "rows": rows, "ticks": ticks},
    )  # fmt: skip


@routes.get("/o/{address}")
async def orchestrator(request: web.Request) -> web.Response:
    """Show one orchestrator: each capability's history, and its newest results."""
    parts = request.app[CONTEXT]
    address = request.match_info["address"].lower()
    cells = await parts.queries.matrix(address, recent=200)
    if not cells:
        return await _missing(
            request,
            "No result of this orchestrator is kept.",
            "The address may be mistyped, no gateway may know it, or none of its jobs has been tested yet.",
        )
    before = _number(request.query.get("before"))
    recent = await parts.queries.page(ResultFilters(orchestrator=address), before=before, limit=_ON_A_PAGE)
    plotted = await asyncio.to_thread(lambda: [(cell, latency(cell.recent)) for cell in cells])
    return await _page(
        request,
        "orchestrator.html",
        {"address": address, "cells": plotted, "results": recent, "older": _older(recent), "shapes": SHAPES},
    )


@routes.get("/r/{id}")
async def result(request: web.Request) -> web.Response:
    """Show one result with everything behind it."""
    found = await request.app[CONTEXT].queries.get(request.match_info["id"])
    if found is None:
        return await _missing(request, "No such result is kept.", _DELETED)
    return await _page(request, "result.html", {"result": found, "row": explained(found)})


@routes.get("/t/{id}")
async def tick(request: web.Request) -> web.Response:
    """Show one tick: its report, its slowest jobs, what failed and why, and when each gateway did what."""
    parts = request.app[CONTEXT]
    found = await parts.ticks.get(request.match_info["id"])
    if found is None:
        return await _missing(request, "No such tick is kept.", _DELETED)
    chosen = {name: request.query.get(name, "") for name in ("outcome", "reason")}
    before = _number(request.query.get("before"))
    recent = await parts.queries.page(ResultFilters(tick=found.id, **chosen), before=before, limit=_ON_A_PAGE)
    jobs = await parts.queries.timeline(found.id)
    return await _page(
        request,
        "tick.html",
        {"tick": found, "report": found.report, "slowest": await parts.queries.slowest(found.id), "results": recent,
         "older": _older(recent, chosen), "chosen": chosen, "timeline": await asyncio.to_thread(timeline, jobs)},
    )  # fmt: skip


@routes.get("/outbox")
async def outbox(request: web.Request) -> web.Response:
    """Show what has not reached the Leaderboard, and why."""
    parts = request.app[CONTEXT]
    return await _page(
        request,
        "outbox.html",
        {"counts": await parts.outbox.counts(), "entries": await parts.outbox.entries(limit=200),
         "received": await parts.queries.newest_external(), "now": time.time()},
    )  # fmt: skip


@routes.get("/live")
async def live(request: web.Request) -> web.StreamResponse:
    """Stream the running tick's progress, once a second while it changes, and now and then while it does not.

    So that no proxy in front takes the silence between ticks for a dead connection, nor keeps what comes for later.
    """
    parts = request.app[CONTEXT]
    response = web.StreamResponse(headers=_STREAM)
    await response.prepare(request)
    # The answer has begun, so an error of ours can only end it: the page asks again by itself.
    with CrashBoundary(parts.metrics.count_internal_error).unit(
        "request", expected=(ConnectionError,), path=request.path
    ):
        await _stream(parts, response)
    return response


async def _stream(parts: WebContext, response: web.StreamResponse) -> None:
    last, said_at = b"", 0.0
    while not parts.closing.is_set():
        now = orjson.dumps(progress(parts))
        if now != last or time.monotonic() - said_at >= parts.silence_s:
            try:
                await response.write(b"data: " + now + b"\n\n")
            except ConnectionError:
                break  # the page was closed
            last, said_at = now, time.monotonic()
        try:
            async with asyncio.timeout(_EVERY_S):
                await parts.closing.wait()
        except TimeoutError:
            continue


def progress(parts: WebContext) -> dict[str, Any]:
    """Give the newest tick's progress as plain values."""
    running = parts.progress()
    shown: dict[str, Any] = {"running": False, "tick": "", "planned": 0, "settled": 0, "in_air": [], "outcomes": {}}
    next_at = parts.next_tick_at()
    shown["next"] = instant(next_at) if next_at else ""
    if running is not None:
        report = running.report
        shown |= {
            "running": report.finished_at is None,
            "tick": report.tick,
            "planned": report.planned,
            "settled": report.settled,
            "outcomes": {one.value: report.outcomes[one] for one in Outcome},
            "in_air": [
                {
                    "orchestrator": shorten_address(job.orchestrator.address),
                    "pipeline": show_control_characters(abbreviate(job.pipeline)),
                    "model": show_control_characters(abbreviate(job.model)),
                    "gateway": gateway,
                }
                for job, gateway, _ in list(running.in_flight.values())[:4]
            ],
        }
    return shown


def _newest(shown: dict[str, Any], ticks: Sequence[TickRow]) -> dict[str, Any]:
    """Show the newest kept tick where none has run since the start."""
    if shown["tick"] or not ticks or not ticks[0].report:
        return shown
    report = ticks[0].report
    return shown | {"tick": ticks[0].id} | {name: report[name] for name in ("planned", "settled", "outcomes")}


async def _missing(request: web.Request, problem: str, advice: str) -> web.Response:
    """Say on a page that something is not there; what was asked for is not repeated."""
    return await _page(request, "missing.html", {"problem": problem, "advice": advice}, status=404)


async def _page(request: web.Request, template: str, context: Mapping[str, Any], *, status: int = 200) -> web.Response:
    """Render a page in a thread: one with a hundred orchestrators takes longer than the event loop may be held up."""
    parts = request.app[CONTEXT]
    shared = {"version": __version__, "simulated": parts.simulated, "region": parts.settings().region,
              "here": request.path, "refused_edit": parts.refused_edit()}  # fmt: skip
    text = await asyncio.to_thread(aiohttp_jinja2.render_string, template, request, {**shared, **context})
    response = web.Response(
        text=text, status=status, content_type="text/html", headers={"Content-Security-Policy": _POLICY}
    )
    response.enable_compression()
    return response


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 18 else None


def _older(found: Sequence[ResultRow], chosen: Mapping[str, str] | None = None) -> str:
    """Give the address of what comes after a full page, with the same choice; empty if there is no more."""
    if len(found) < _ON_A_PAGE:
        return ""
    kept = {name: value for name, value in (chosen or {}).items() if value}
    return f"?{urlencode({**kept, 'before': found[-1].seq})}#results"
