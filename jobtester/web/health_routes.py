"""Serve liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

from jobtester.metrics import CONTENT_TYPE
from jobtester.web.access import is_reader, is_restricted
from jobtester.web.context import CONTEXT

routes = web.RouteTableDef()


@routes.get("/healthz")
async def check_liveness(request: web.Request) -> web.Response:
    """Answer whether the daemon lives; a network under test that fails does not make it unhealthy."""
    return _build_answer(await request.app[CONTEXT].health.check_liveness())


@routes.get("/readyz")
async def check_readiness(request: web.Request) -> web.Response:
    """Answer whether every peer can be used; what is wrong with which one is for readers."""
    checks = await request.app[CONTEXT].health.check_readiness()
    if is_restricted(request.app[CONTEXT].settings().server) and not is_reader(request):
        checks = {name: {"ok": check["ok"]} for name, check in checks.items()}
    return _build_answer(checks)


@routes.get("/metrics")
async def serve_metrics(request: web.Request) -> web.Response:
    """Answer with all metrics, for Prometheus."""
    context = request.app[CONTEXT]
    await context.health.refresh_metrics()
    # In a thread: thousands of series take longer to write than the event loop may be held up.
    body = await asyncio.to_thread(context.metrics.render)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


def _build_answer(checks: dict[str, dict[str, Any]]) -> web.Response:
    # Indented, because people read it with curl when something is wrong.
    ok = all(check["ok"] for check in checks.values())
    body = orjson.dumps({"ok": ok, "checks": checks}, option=orjson.OPT_INDENT_2) + b"\n"
    return web.Response(body=body, status=200 if ok else 503, content_type="application/json")
