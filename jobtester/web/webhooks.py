"""What gateways tell us: their event sinks post here, and are never kept waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import orjson
import structlog
from aiohttp import web

from jobtester.gateway import events
from jobtester.gateway.lane import Lane
from jobtester.web import bearer, bodies
from jobtester.web.parts import PARTS, Parts

log = structlog.get_logger()
routes = web.RouteTableDef()

_MOST_BYTES = 1 * 2**20
_AT_ONCE = 100  # events of one batch that are taken in one turn of the event loop


@routes.post("/webhooks/gateway-events")
async def gateway_events(request: web.Request) -> web.Response:
    """Take a batch of a gateway's events; junk is counted and dropped, so that the sink never tries again."""
    parts = request.app[PARTS]
    if not _allowed(request, parts):
        parts.metrics.events.labels("refused").inc()
        raise web.HTTPForbidden(text="the events token is missing or wrong\n")
    try:
        body = await bodies.whole(request, _MOST_BYTES)
    except bodies.UnreadError as error:
        parts.metrics.events.labels("refused").inc()
        return web.Response(status=error.status, text=f"{error}\n")
    try:
        batch = orjson.loads(body)
    except orjson.JSONDecodeError:
        parts.metrics.events.labels("ignored").inc()
        return web.Response(status=204)
    for number, event in enumerate(events.read(batch, time.time()), 1):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        lane = _lane_of(event, parts.lanes())
        if lane is None:
            parts.metrics.events.labels("ignored").inc()
            continue
        parts.metrics.events.labels("used").inc()
        parts.heard(lane, event)
    return web.Response(status=204)


def _lane_of(event: events.Completed, lanes: Sequence[Lane]) -> Lane | None:
    """Find the lane an event belongs to: by the name the gateway gives itself, else the only one with a sink."""
    listening = [lane for lane in lanes if lane.evidence.events is not None]
    for lane in listening:
        if event.gateway and event.gateway.lower() == (lane.settings.event_source or lane.name).lower():
            return lane
    unnamed = [lane for lane in listening if not lane.settings.event_source]
    return unnamed[0] if len(listening) == 1 and unnamed else None


def _allowed(request: web.Request, parts: Parts) -> bool:
    """Return True if the sink sent the token, or none is asked for: as a bearer, or bare in either header."""
    token = parts.settings().server.events_token
    if token is None or not token.get_secret_value():
        return True
    own, general = request.headers.get("X-Events-Token"), request.headers.get("Authorization", "")
    given = own if own is not None else general
    shown = bearer.bearer_of(given)
    return bearer.is_token(given.strip() if shown is None else shown, token)
