"""What gateways tell us: their event sinks post here, and are never kept waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import orjson
import structlog
from aiohttp import web

from jobtester.gateway.gateway import Gateway
from jobtester.gateway.gateway_events import JobCompletedEvent, parse_events
from jobtester.web.bearer import bearer_of, is_token
from jobtester.web.context import CONTEXT, WebContext
from jobtester.web.request_body import BodyReadError, read_limited

log = structlog.get_logger()
routes = web.RouteTableDef()

_MOST_BYTES = 1 * 2**20
_AT_ONCE = 100  # events of one batch that are taken in one turn of the event loop


@routes.post("/webhooks/gateway-events")
async def gateway_events(request: web.Request) -> web.Response:
    """Take a batch of a gateway's events; junk is counted and dropped, so that the sink never tries again."""
    parts = request.app[CONTEXT]
    if not _allowed(request, parts):
        parts.metrics.events.labels("refused").inc()
        raise web.HTTPForbidden(text="the events token is missing or wrong\n")
    try:
        body = await read_limited(request, _MOST_BYTES)
    except BodyReadError as error:
        parts.metrics.events.labels("refused").inc()
        return web.Response(status=error.status, text=f"{error}\n")
    try:
        batch = orjson.loads(body)
    except orjson.JSONDecodeError:
        parts.metrics.events.labels("ignored").inc()
        return web.Response(status=204)
    for number, event in enumerate(parse_events(batch, time.time()), 1):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        gateway = _find_gateway(event, parts.gateways())
        if gateway is None:
            parts.metrics.events.labels("ignored").inc()
            continue
        parts.metrics.events.labels("used").inc()
        parts.enqueue_event(gateway, event)
    return web.Response(status=204)


def _find_gateway(event: JobCompletedEvent, gateways: Sequence[Gateway]) -> Gateway | None:
    """Find the gateway an event belongs to: by the name the gateway gives itself, else the only one with a sink."""
    listening = [gateway for gateway in gateways if gateway.evidence.events is not None]
    for gateway in listening:
        if event.gateway and event.gateway.lower() == (gateway.settings.event_source or gateway.name).lower():
            return gateway
    unnamed = [gateway for gateway in listening if not gateway.settings.event_source]
    return unnamed[0] if len(listening) == 1 and unnamed else None


def _allowed(request: web.Request, parts: WebContext) -> bool:
    """Return True if the sink sent the token, or none is asked for: as a bearer, or bare in either header."""
    token = parts.settings().server.events_token
    if token is None or not token.get_secret_value():
        return True
    own, general = request.headers.get("X-Events-Token"), request.headers.get("Authorization", "")
    given = own if own is not None else general
    shown = bearer_of(given)
    return is_token(given.strip() if shown is None else shown, token)
