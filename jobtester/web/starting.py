"""Answer health checks while the store cannot be opened yet: alive, not ready, and why."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from jobtester.web.app import listen


@contextlib.asynccontextmanager
async def serve_unready(host: str, port: int, problem: str) -> AsyncIterator[None]:
    """Listen while the store cannot be used because of `problem`. Raises PortInUseError."""

    async def answer(request: web.Request) -> web.Response:
        # Alive, so that no supervisor restarts the tester in a circle: only room on the disk helps.
        if request.path == "/healthz":
            return web.json_response({"ok": True, "checks": {}})
        checks = {"store": {"ok": False, "problem": problem}}
        if request.path == "/readyz":
            return web.json_response({"ok": False, "checks": checks}, status=503)
        return web.json_response({"error": f"not started yet: {problem}"}, status=503)

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    runner, _ = await listen(app, host, port)
    try:
        yield
    finally:
        await runner.cleanup()
