"""The webhook by which a gateway learns which orchestrator to use: always 200, always quick."""

from __future__ import annotations

import orjson
from aiohttp import web

from jobtester.gateway.gateway import Gateway
from jobtester.gateway.targeting import WebhookTargeting, webhook_entries
from jobtester.web.context import CONTEXT

routes = web.RouteTableDef()


@routes.get("/orchestrators")
async def alone(request: web.Request) -> web.Response:
    """Answer the only webhook gateway; with several, say which address each has."""
    parts = request.app[CONTEXT]
    gateways = [gateway for gateway in parts.gateways() if isinstance(gateway.targeting, WebhookTargeting)]
    if len(gateways) == 1 or not gateways:
        return _answer(request, gateways[0] if gateways else None)
    paths = ", ".join(f"/orchestrators/{gateway.name}" for gateway in gateways)
    raise web.HTTPNotFound(text=f"several webhook gateways are configured; each has its own address: {paths}\n")


@routes.get("/orchestrators/{gateway}")
async def named(request: web.Request) -> web.Response:
    """Answer one of several webhook gateways."""
    name = request.match_info["gateway"]
    for gateway in request.app[CONTEXT].gateways():
        if gateway.name == name and isinstance(gateway.targeting, WebhookTargeting):
            return _answer(request, gateway)
    raise web.HTTPNotFound(text="no webhook gateway of this name is configured\n")


def _answer(request: web.Request, gateway: Gateway | None) -> web.Response:
    found: list[dict[str, object]] = []
    if gateway is not None and isinstance(gateway.targeting, WebhookTargeting):
        found = webhook_entries(gateway.targeting.answer_webhook())
        request.app[CONTEXT].metrics.webhook_requests.labels(gateway.name).inc()
    return web.Response(
        body=orjson.dumps(found), content_type="application/json", headers={"Cache-Control": "no-store"}
    )
