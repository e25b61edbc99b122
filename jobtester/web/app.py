"""Build and start the daemon's one web application."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import http_exceptions, web

from jobtester.errors import PortInUseError, StoreError
from jobtester.web import api, health_routes, pages, result_pages, webhooks
from jobtester.web.access import check_access
from jobtester.web.context import CLOSING, CONTEXT, WebContext
from jobtester.web.query_params import QueryError
from jobtester.web.rendering import render_missing
from jobtester.web.requests import PEER_ERRORS

log = structlog.get_logger()

_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'"
_ROUTING_ERRORS = {404: "no such route; /api/openapi.json lists all", 405: "this method is not allowed here"}


def build_app(context: WebContext) -> web.Application:
    """Return the application with all routes."""
    # Webhooks bound their bodies themselves; this is the limit for a handler that would not.
    app = web.Application(middlewares=[_answer_errors, check_access], client_max_size=8 * 2**20)
    app[CONTEXT] = context
    app[CLOSING] = asyncio.Event()
    app[webhooks.RATE_LIMITER] = webhooks.RateLimiter()
    app[pages.KEEPALIVE_S] = 15.0
    app[pages.PREPARE_AFTER_S] = 1.0
    for routes in (health_routes.routes, webhooks.routes, api.routes, result_pages.routes):
        app.router.add_routes(routes)
    pages.add_pages(app)
    app.on_shutdown.append(_end_streams)
    return app


async def _end_streams(app: web.Application) -> None:
    app[CLOSING].set()


async def listen(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Start to serve. Return the runner and the port it got. Raises PortInUseError."""
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_get_server_logger(),
        shutdown_timeout=2.0,
        auto_decompress=False,  # a signature is over the body as it was sent
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(f"server.port: {port} is taken by another program; set another, or stop it") from error
        raise PortInUseError(f"server.host, server.port: cannot listen on {host}:{port}: {error.strerror}") from error
    return runner, int(runner.addresses[0][1])


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Add the headers of every answer. Answer an internal error without its inside, which is logged.

    The API answers errors as JSON, the other routes as text.
    """
    is_api = request.path.startswith(api.PREFIX)
    response: web.StreamResponse
    try:
        response = await handler(request)
    except QueryError as error:
        response = api.build_error(400, str(error))
    except web.HTTPException as error:
        if not is_api and error.status == 404 and _is_from_browser(request) and _is_unexplained(error):
            response = await render_missing(request, "This page does not exist.", "The address may be mistyped.")
        elif not is_api or error.status < 400:
            error.headers.update(_HEADERS)
            error.headers.setdefault("Content-Security-Policy", _CONTENT_POLICY)
            raise
        else:
            response = _convert_to_json(error)
    except ConnectionError:
        raise  # the peer is gone, and the server releases the connection
    except StoreError as error:
        log.error("request_failed", path=request.path, problem=str(error))
        response = _build_failure(503, "the store cannot be read or written at the moment; /healthz has more", is_api)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            response = _build_failure(404, "no file has such a name", is_api)
        else:
            request.app[CONTEXT].metrics.count_internal_error("request")
            log.exception("request_crashed", path=request.path)
            response = _build_failure(500, "internal error of the tester; its log has the traceback", is_api)
    # A stream has sent its headers already.
    if not response.prepared:
        response.headers.update(_HEADERS)
        response.headers.setdefault("Content-Security-Policy", _CONTENT_POLICY)
    return response


def _convert_to_json(error: web.HTTPException) -> web.Response:
    text = (error.text or "").strip()
    if _is_unexplained(error):
        text = _ROUTING_ERRORS.get(error.status, error.reason)
    response = api.build_error(error.status, text)
    for name in ("Allow", "WWW-Authenticate"):
        if name in error.headers:
            response.headers[name] = error.headers[name]
    return response


def _is_unexplained(error: web.HTTPException) -> bool:
    """Return True if the text is aiohttp's own: no handler has said more."""
    return (error.text or "").strip() == f"{error.status}: {error.reason}"


def _is_from_browser(request: web.Request) -> bool:
    return "text/html" in request.headers.get("Accept", "")


def _build_failure(status: int, message: str, is_api: bool) -> web.Response:
    return api.build_error(status, message) if is_api else web.Response(status=status, text=message + "\n")


def _get_server_logger() -> logging.Logger:
    """Return the HTTP server's logger, which does not log as an error what only a broken peer causes."""
    logger = logging.getLogger("jobtester.http")
    if not any(isinstance(existing, _PeerErrorFilter) for existing in logger.filters):
        logger.addFilter(_PeerErrorFilter())
    return logger


class _PeerErrorFilter(logging.Filter):
    """Drops records about bytes that are not HTTP and about peers that hang up."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if not isinstance(error, (http_exceptions.HttpProcessingError, *PEER_ERRORS)):
            return True
        log.debug("request_broken", problem=type(error).__name__)
        return False
