"""The one web application of the daemon."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from jobtester.errors import PortInUseError, StoreError
from jobtester.web import api, health, orchestrators, receiver, webhooks
from jobtester.web.context import CONTEXT, WebContext
from jobtester.web.pages import set_up
from jobtester.web.query_params import QueryError
from jobtester.web.request_body import server_logger

log = structlog.get_logger()

_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_POLICY = "default-src 'none'; frame-ancestors 'none'"


def make_app(parts: WebContext) -> web.Application:
    """Put all routes together."""
    app = web.Application(middlewares=[_safely], client_max_size=8 * 2**20)
    app[CONTEXT] = parts
    for routes in (orchestrators.routes, health.routes, webhooks.routes, receiver.routes, api.routes):
        app.router.add_routes(routes)
    set_up(app)
    app.on_shutdown.append(_close)
    return app


async def _close(app: web.Application) -> None:
    """End what would stream for ever."""
    app[CONTEXT].closing.set()


async def listen(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Start to serve and give the runner with the port it got. Raises PortInUseError."""
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=server_logger(),
        shutdown_timeout=2.0,
        auto_decompress=False,  # what is signed is the body as it was sent
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
async def _safely(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Add the headers that every answer carries; an error of ours is logged and answered without its inside.

    The API answers errors as JSON too.
    """
    for_programs = request.path.startswith(api.PREFIX)
    response: web.StreamResponse
    try:
        response = await handler(request)
    except QueryError as error:
        response = api.problem(400, str(error))
    except web.HTTPException as error:
        if not for_programs or error.status < 400:
            error.headers.update(_HEADERS)
            error.headers.setdefault("Content-Security-Policy", _POLICY)
            raise
        response = _as_json(error)
    except ConnectionError:
        raise  # the peer is gone, and the server lets go of it
    except StoreError as error:
        log.error("request_not_answered", path=request.path, problem=str(error))
        response = _failure(503, "the store cannot be read or written just now; /healthz has more", for_programs)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            response = _failure(404, "there is no file of such a name", for_programs)
        else:
            request.app[CONTEXT].metrics.count_internal_error("request")
            log.exception("request_crashed", path=request.path)
            response = _failure(500, "something went wrong here; the log has it", for_programs)
    if not response.prepared:
        response.headers.update(_HEADERS)
        response.headers.setdefault("Content-Security-Policy", _POLICY)
    return response


def _as_json(error: web.HTTPException) -> web.Response:
    routed = {404: "there is nothing here; /api/openapi.json lists what there is", 405: "this is not to be done here"}
    said = (error.text or "").strip()
    standard = f"{error.status}: {error.reason}"
    answer = api.problem(error.status, routed.get(error.status, error.reason) if said == standard else said)
    for name in ("Allow", "WWW-Authenticate"):
        if name in error.headers:
            answer.headers[name] = error.headers[name]
    return answer


def _failure(status: int, message: str, for_programs: bool) -> web.Response:
    return api.problem(status, message) if for_programs else web.Response(status=status, text=message + "\n")
