"""The one web application of the daemon."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from jobtester.errors import PortInUseError
from jobtester.web import health, orchestrators, pages, receiver, webhooks
from jobtester.web.parts import PARTS, Parts

log = structlog.get_logger()

_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def make(parts: Parts) -> web.Application:
    """Put all routes together."""
    app = web.Application(middlewares=[_safely], client_max_size=8 * 2**20)
    app[PARTS] = parts
    for routes in (orchestrators.routes, health.routes, webhooks.routes, receiver.routes):
        app.router.add_routes(routes)
    pages.set_up(app)
    app.on_shutdown.append(_close)
    return app


async def _close(app: web.Application) -> None:
    """End what would stream for ever."""
    app[PARTS].closing.set()


async def listen(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Start to serve and give the runner with the port it got. Raises PortInUseError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
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
    """Add the headers that every answer carries; an error of ours is logged and answered without its inside."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(_HEADERS)
        raise
    except Exception:
        log.exception("request_failed", path=request.path)
        return web.Response(status=500, text="something went wrong here; the log has it\n", headers=_HEADERS)
    if not response.prepared:
        response.headers.update(_HEADERS)
    return response
