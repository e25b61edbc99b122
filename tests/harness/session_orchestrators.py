"""An orchestrator that keeps sessions as go-livepeer does, until they are stopped, and can be made to do it badly."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.harness.live_runners import FakeOrchestrator, own_error

SAY = {
    "runner": True, "apps": ["someone/*"], "uri": "/say", "timeout": "20s",
    "checks": [{"check": "json", "path": "text"}],
}  # fmt: skip


@dataclass(slots=True)
class SessionOrchestrator(FakeOrchestrator):
    """Serves one persistent app, whose sessions keep one of `capacity` slots each.

    The answers to stops and to calls of the app are the next of `stop_statuses` and `call_statuses`, else the right
    ones. A reservation takes `reserve_s` seconds, and of its answer only `reserve_bytes` are sent, if that is set.
    """

    capacity: int = 1
    stop_statuses: list[int] = field(default_factory=list)
    call_statuses: list[int] = field(default_factory=list)
    reserve_s: float = 0.0
    reserve_bytes: int | None = None
    open_sessions: set[str] = field(default_factory=set)
    ended_sessions: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """List the app."""
        self.apps = {"app": self._handle}
        self.changes = {"app": {"mode": "persistent", "url": "{uri}/apps/app/session"}}

    @property
    def kinds(self) -> list[str]:
        """What was asked for, in order: reserve, call or stop."""
        names = {"": "reserve", "/": "reserve"}
        return [names.get(path, "stop" if path.endswith("/stop") else "call") for _, path, _ in self.requests]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if path in ("", "/"):
            return await self._reserve(request)
        session = path.split("/")[1]
        if path.endswith("/stop"):
            if self.stop_statuses and (status := self.stop_statuses.pop(0)) != 204:
                return web.Response(status=status)
            if session not in self.open_sessions | self.ended_sessions:
                return own_error(404, "runner session not found")
            self.open_sessions.discard(session)
            self.ended_sessions.add(session)
            return web.Response(status=204)
        if session not in self.open_sessions:
            return own_error(404, "runner session not found")
        if self.call_statuses and (status := self.call_statuses.pop(0)) != 200:
            return web.Response(status=status)
        return web.json_response({"text": "hello"})

    async def _reserve(self, request: web.Request) -> web.StreamResponse:
        if len(self.open_sessions) >= self.capacity:
            return own_error(503, "no capacity available for runner")
        session = f"session_{len(self.open_sessions | self.ended_sessions) + 1:08x}"
        self.open_sessions.add(session)
        # A client that hangs up meanwhile changes nothing: the session is open.
        await asyncio.shield(asyncio.ensure_future(asyncio.sleep(self.reserve_s)))
        url = f"{self.uri}/apps/app/session/{session}"
        answer: dict[str, Any] = {"session_id": session, "app_url": f"{url}/app", "control_url": url}
        if self.reserve_bytes is None:
            return web.json_response(answer)
        body = json.dumps(answer).encode()
        response = web.StreamResponse()
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: self.reserve_bytes])
        assert request.transport is not None
        request.transport.close()
        return response
