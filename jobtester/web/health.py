"""Liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

from jobtester.metrics import CONTENT_TYPE
from jobtester.web.context import CONTEXT

routes = web.RouteTableDef()


@routes.get("/healthz")
async def healthz(request: web.Request) -> web.Response:
    """Tell whether the daemon lives; a network under test that fails does not make it unhealthy."""
    return _checks(await request.app[CONTEXT].health.check_liveness())


@routes.get("/readyz")
async def readyz(request: web.Request) -> web.Response:
    """Tell whether every peer can be used."""
    return _checks(await request.app[CONTEXT].health.check_readiness())


@routes.get("/metrics")
async def prometheus(request: web.Request) -> web.Response:
    """Give everything to Prometheus."""
    parts = request.app[CONTEXT]
    await parts.refresh_metrics()
    body = await asyncio.to_thread(parts.metrics.render)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


def _checks(checks: dict[str, dict[str, Any]]) -> web.Response:
    well = all(check["ok"] for check in checks.values())
    body = orjson.dumps({"ok": well, "checks": checks}, option=orjson.OPT_INDENT_2) + b"\n"
    return web.Response(body=body, status=200 if well else 503, content_type="application/json")
