"""The webhook by which a gateway learns which orchestrator to use: always 200, always quick."""

from __future__ import annotations

import orjson
from aiohttp import web

from jobtester.gateway import targeting
from jobtester.gateway.lane import Lane
from jobtester.web.parts import PARTS

routes = web.RouteTableDef()


@routes.get("/orchestrators")
async def alone(request: web.Request) -> web.Response:
    """Answer the only webhook gateway; with several, say which address each has."""
    parts = request.app[PARTS]
    lanes = [lane for lane in parts.lanes() if isinstance(lane.targeting, targeting.Webhook)]
    if len(lanes) == 1 or not lanes:
        return _answer(request, lanes[0] if lanes else None)
    paths = ", ".join(f"/orchestrators/{lane.name}" for lane in lanes)
    raise web.HTTPNotFound(text=f"several webhook gateways are configured; each has its own address: {paths}\n")


@routes.get("/orchestrators/{gateway}")
async def named(request: web.Request) -> web.Response:
    """Answer one of several webhook gateways."""
    name = request.match_info["gateway"]
    for lane in request.app[PARTS].lanes():
        if lane.name == name and isinstance(lane.targeting, targeting.Webhook):
            return _answer(request, lane)
    raise web.HTTPNotFound(text="no webhook gateway of this name is configured\n")


def _answer(request: web.Request, lane: Lane | None) -> web.Response:
    found: list[dict[str, object]] = []
    if lane is not None and isinstance(lane.targeting, targeting.Webhook):
        found = targeting.entries(lane.targeting.named())
        request.app[PARTS].metrics.asked.labels(lane.name).inc()
    return web.Response(
        body=orjson.dumps(found), content_type="application/json", headers={"Cache-Control": "no-store"}
    )
