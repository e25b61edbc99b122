"""The receiver: other testers' results, posted as they would post them to the Leaderboard."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import orjson
import structlog
from aiohttp import web

from jobtester.domain.external_results import ExternalResult, InvalidStatError, parse_results
from jobtester.errors import StoreError
from jobtester.http import is_signature_valid
from jobtester.web.context import CONTEXT, WebContext
from jobtester.web.request_body import BodyReadError, read_limited

log = structlog.get_logger()
routes = web.RouteTableDef()

_MOST_BYTES = 4 * 2**20
_LONG = 64 * 1024
_PER_MINUTE = 6_000
_SOURCES = 1_000


@routes.post("/webhooks/test-results")
@routes.post("/api/post_stats")
async def results(request: web.Request) -> web.Response:
    """Take a signed result, or an array of them: kept and forwarded once, and answered as the Leaderboard answers."""
    parts = request.app[CONTEXT]
    secret = parts.settings().server.results_secret
    if secret is None:
        return _error(404, "this tester takes no results: server.results_secret is not set")
    source = request.remote or "unknown"
    if _too_many(parts.rates, source):
        return _refused(parts, 429, "too many results from your address in the last minute")
    try:
        body = await read_limited(request, _MOST_BYTES)
    except BodyReadError as error:
        return _refused(parts, error.status, str(error))
    if not is_signature_valid(secret.get_secret_value(), body, request.headers.get("Authorization", "").strip()):
        return _refused(parts, 403, "request can not be authenticated")
    try:
        found = parse_results(body) if len(body) < _LONG else await asyncio.to_thread(parse_results, body)
    except InvalidStatError as error:
        return _refused(parts, 400, str(error))
    return await _keep(parts, body, source, found)


async def _keep(parts: WebContext, body: bytes, source: str, found: list[ExternalResult]) -> web.Response:
    if parts.receive_results is None:
        return _refused(parts, 503, "this tester posts nothing, so it cannot forward results")
    try:
        new = await parts.receive_results(body, source, found)
    except InvalidStatError as error:
        return _refused(parts, 400, str(error))
    except StoreError as error:
        log.error("result_not_kept", source=source, problem=str(error))
        return _refused(parts, 503, "the result could not be kept; try again later")
    parts.metrics.results_received.labels("accepted" if new else "repeated").inc(len(found))
    return web.Response(text="ok")


def _too_many(rates: dict[str, deque[float]], source: str) -> bool:
    """Count a request of a source; tell whether it has had too many within a minute."""
    now = time.monotonic()
    if source not in rates and len(rates) >= _SOURCES:
        rates.pop(next(iter(rates)))
    seen = rates.setdefault(source, deque(maxlen=_PER_MINUTE))
    if len(seen) == _PER_MINUTE and now - seen[0] < 60:
        return True
    seen.append(now)
    return False


def _refused(parts: WebContext, status: int, message: str) -> web.Response:
    parts.metrics.results_received.labels("refused").inc()
    return _error(status, message)


def _error(status: int, message: str) -> web.Response:
    return web.Response(status=status, body=orjson.dumps({"error": message}), content_type="application/json")
