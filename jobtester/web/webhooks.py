"""Serve what others call: gateways ask which orchestrator to use and post events, other testers post results."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson
import structlog
from aiohttp import web

from jobtester.domain.external_results import ExternalResult, InvalidStatError, parse_results
from jobtester.errors import StoreError
from jobtester.gateway.gateway import Gateway
from jobtester.gateway.gateway_events import JobCompletedEvent, parse_events
from jobtester.gateway.targeting import WebhookTargeting, webhook_entries
from jobtester.http import is_signature_valid
from jobtester.web.access import find_client
from jobtester.web.context import CONTEXT, WebContext
from jobtester.web.requests import BodyReadError, is_token, parse_bearer, read_limited
from jobtester.web.schemas import ErrorSchema

log = structlog.get_logger()
routes = web.RouteTableDef()

_MAX_EVENT_BYTES = 1 * 2**20
_EVENTS_PER_TURN = 100
_MAX_RESULT_BYTES = 4 * 2**20
_INLINE_BYTES = 64 * 1024  # parsing more than this holds up the event loop, so a thread does it
_MAX_SOURCES = 1_000


@dataclass(slots=True)
class RateLimiter:
    """Counts the requests of each source within the last minute."""

    per_minute: int = 6_000
    clock: Callable[[], float] = time.monotonic
    _times: dict[str, deque[float]] = field(default_factory=dict)

    def is_exceeded(self, source: str) -> bool:
        """Count a request of a source. Return True if it has had too many within a minute."""
        now = self.clock()
        if source not in self._times and len(self._times) >= _MAX_SOURCES:
            # Forgetting the oldest source bounds the memory; a caller with a thousand addresses is not stopped here.
            self._times.pop(next(iter(self._times)))
        times = self._times.setdefault(source, deque(maxlen=self.per_minute))
        if len(times) == self.per_minute and now - times[0] < 60:
            return True
        times.append(now)
        return False


RATE_LIMITER = web.AppKey("rate_limiter", RateLimiter)


@routes.get("/orchestrators")
async def answer_only_gateway(request: web.Request) -> web.Response:
    """Answer the only webhook gateway; with several, name the path of each."""
    gateways = [
        gateway for gateway in request.app[CONTEXT].gateways() if isinstance(gateway.targeting, WebhookTargeting)
    ]
    if len(gateways) > 1:
        paths = ", ".join(f"/orchestrators/{gateway.name}" for gateway in gateways)
        raise web.HTTPNotFound(text=f"several webhook gateways are configured; each has its own path: {paths}\n")
    return _build_answer(request, gateways[0] if gateways else None)


@routes.get("/orchestrators/{gateway}")
async def answer_gateway(request: web.Request) -> web.Response:
    """Answer one of several webhook gateways."""
    name = request.match_info["gateway"]
    for gateway in request.app[CONTEXT].gateways():
        if gateway.name == name and isinstance(gateway.targeting, WebhookTargeting):
            return _build_answer(request, gateway)
    raise web.HTTPNotFound(text="no webhook gateway of this name is configured\n")


def _build_answer(request: web.Request, gateway: Gateway | None) -> web.Response:
    entries: list[dict[str, object]] = []
    if gateway is not None and isinstance(gateway.targeting, WebhookTargeting):
        entries = webhook_entries(gateway.targeting.answer_webhook())
        request.app[CONTEXT].metrics.webhook_requests.labels(gateway.name).inc()
    return web.Response(
        body=orjson.dumps(entries), content_type="application/json", headers={"Cache-Control": "no-store"}
    )


@routes.post("/webhooks/gateway-events")
async def receive_gateway_events(request: web.Request) -> web.Response:
    """Accept a batch of a gateway's events.

    Junk is counted and dropped with a 204: an error would only make the gateway's sink send it again.
    """
    context = request.app[CONTEXT]
    if not _has_events_token(request, context):
        context.metrics.events.labels("refused").inc()
        raise web.HTTPForbidden(text="the events token is missing or wrong\n")
    try:
        body = await read_limited(request, _MAX_EVENT_BYTES)
    except BodyReadError as error:
        context.metrics.events.labels("refused").inc()
        return web.Response(status=error.status, text=f"{error}\n")
    try:
        batch = orjson.loads(body)
    except orjson.JSONDecodeError:
        context.metrics.events.labels("ignored").inc()
        return web.Response(status=204)
    for number, event in enumerate(parse_events(batch, time.time()), 1):
        if number % _EVENTS_PER_TURN == 0:
            await asyncio.sleep(0)  # a long batch must not hold up the jobs whose round trips are being measured
        gateway = _find_gateway(event, context.gateways())
        context.metrics.events.labels("ignored" if gateway is None else "used").inc()
        if gateway is not None:
            context.enqueue_event(gateway, event)
    return web.Response(status=204)


def _find_gateway(event: JobCompletedEvent, gateways: Sequence[Gateway]) -> Gateway | None:
    """Return the gateway that sent an event: by the name in the event, else the only one with a sink."""
    with_sink = [gateway for gateway in gateways if gateway.evidence.events is not None]
    # What a gateway calls itself in its events need not be its name in config.toml.
    for gateway in with_sink:
        if event.gateway and event.gateway.lower() == (gateway.settings.event_source or gateway.name).lower():
            return gateway
    unnamed = [gateway for gateway in with_sink if not gateway.settings.event_source]
    return unnamed[0] if len(with_sink) == 1 and unnamed else None


def _has_events_token(request: web.Request, context: WebContext) -> bool:
    """Return True if the sink sent the token, or none is configured: as a bearer, or bare in either header."""
    token = context.settings().server.events_token
    if token is None or not token.get_secret_value():
        return True
    # Sinks differ: some send a bearer, others can only set one header to a fixed text.
    own, general = request.headers.get("X-Events-Token"), request.headers.get("Authorization", "")
    header = own if own is not None else general
    bearer = parse_bearer(header)
    return is_token(header.strip() if bearer is None else bearer, token)


@routes.post("/webhooks/test-results")
@routes.post("/api/post_stats")
async def receive_test_results(request: web.Request) -> web.Response:
    """Accept a signed result or an array of them, record and forward each once, and answer as the Leaderboard does."""
    context = request.app[CONTEXT]
    secret = context.settings().server.results_secret
    if secret is None:
        return _build_error(404, "this tester accepts no results: server.results_secret is not set")
    source = find_client(request)
    # Before the signature is checked: hashing the bodies of a flood is what the limit prevents.
    if request.app[RATE_LIMITER].is_exceeded(source):
        return _refuse(context, 429, "too many results from your address in the last minute")
    try:
        body = await read_limited(request, _MAX_RESULT_BYTES)
    except BodyReadError as error:
        return _refuse(context, error.status, str(error))
    if not is_signature_valid(secret.get_secret_value(), body, request.headers.get("Authorization", "").strip()):
        return _refuse(context, 403, "request can not be authenticated")  # the Leaderboard's own words
    try:
        results = parse_results(body) if len(body) < _INLINE_BYTES else await asyncio.to_thread(parse_results, body)
    except InvalidStatError as error:
        return _refuse(context, 400, str(error))
    return await _record(context, body, source, results)


async def _record(context: WebContext, body: bytes, source: str, results: list[ExternalResult]) -> web.Response:
    if context.receive_results is None:
        return _refuse(context, 503, "this tester posts nothing, so it cannot forward results")
    try:
        is_new = await context.receive_results(body, source, results)
    except InvalidStatError as error:
        return _refuse(context, 400, str(error))
    except StoreError as error:
        log.error("external_result_not_recorded", source=source, problem=str(error))
        return _refuse(context, 503, "the result could not be recorded; try again later")
    context.metrics.results_received.labels("accepted" if is_new else "repeated").inc(len(results))
    return web.Response(text="ok")


def _refuse(context: WebContext, status: int, message: str) -> web.Response:
    context.metrics.results_received.labels("refused").inc()
    return _build_error(status, message)


def _build_error(status: int, message: str) -> web.Response:
    return web.Response(status=status, body=ErrorSchema(error=message).to_json(), content_type="application/json")
