"""The channels of an orchestrator's live video: numbered segments that are read while they are written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import web

from jobtester.simulator.background_tasks import BackgroundTasks

_KEPT_SEGMENTS = 5
_GONE = 470


@dataclass(slots=True)
class _Segment:
    content: bytearray = field(default_factory=bytearray)
    is_over: bool = False


@dataclass(slots=True)
class _Channel:
    content_type: str
    segments: dict[int, _Segment] = field(default_factory=dict)
    is_closed: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def latest(self) -> int:
        return max(self.segments, default=-1)

    async def wait_for(self, condition: Callable[[], object]) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.is_closed or condition())

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class ChannelServer:
    """The channels of one orchestrator. It opens them itself; whoever knows a name may read, write and close."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._tasks = BackgroundTasks()

    def create(self, name: str, content_type: str) -> None:
        """Open a channel."""
        self._channels[name] = _Channel(content_type)

    def close(self, name: str) -> None:
        """Close a channel, if it is open."""
        channel = self._channels.pop(name, None)
        if channel is not None:
            channel.is_closed = True
            self._tasks.start(channel.notify(), "end of a channel")

    def exists(self, name: str) -> bool:
        """Return True if a channel is open."""
        return name in self._channels

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the routes by which channels are used."""
        segment = "/ai/trickle/{channel}/{number:-?[0-9]+}"
        router.add_get(segment, self._handle_get)
        router.add_post(segment, self._handle_post)
        router.add_delete("/ai/trickle/{channel}", self._handle_delete)

    async def _handle_delete(self, request: web.Request) -> web.Response:
        name = request.match_info["channel"]
        if not self.exists(name):
            return web.Response(status=400, text="Invalid stream\n")
        self.close(name)
        return web.Response()

    async def _handle_post(self, request: web.Request) -> web.StreamResponse:
        channel = self._channels.get(request.match_info["channel"])
        if channel is None:
            return web.Response(status=404, text="Stream not found\n", headers={"Connection": "close"})
        number = int(request.match_info["number"])
        number = channel.latest + 1 if number == -1 else number
        segment = channel.segments[number] = _Segment()
        for old in sorted(channel.segments)[:-_KEPT_SEGMENTS]:
            del channel.segments[old]
        try:
            async for content in request.content.iter_any():
                segment.content += content
                await channel.notify()
        finally:
            segment.is_over = True
            await channel.notify()
        headers = {"Lp-Trickle-Seq": str(number)}
        return web.Response(headers={**headers, "Lp-Trickle-Closed": "terminated"} if channel.is_closed else headers)

    async def _handle_get(self, request: web.Request) -> web.StreamResponse:
        channel = self._channels.get(request.match_info["channel"])
        if channel is None:
            return web.Response(status=404, text="Stream not found\n")
        latest, number = channel.latest, int(request.match_info["number"])
        number = {-1: latest + 1, -2: max(latest, 0)}.get(number, number)
        if number not in channel.segments and number != latest + 1:
            headers = {"Lp-Trickle-Seq": str(number), "Lp-Trickle-Latest": str(latest)}
            return web.Response(status=_GONE, text="Entry not found", headers=headers)
        await channel.wait_for(lambda: _has_begun(channel.segments.get(number)))
        segment = channel.segments.get(number)
        if segment is None or not _has_begun(segment):
            return web.Response(headers={"Lp-Trickle-Closed": "terminated"})
        headers = {"Content-Type": channel.content_type, "Lp-Trickle-Seq": str(number)}
        if number != channel.latest:
            headers["Lp-Trickle-Latest"] = str(channel.latest)
        response = web.StreamResponse(headers=headers)
        with suppress(ConnectionError):  # the reader has gone
            await response.prepare(request)
            await _send_segment(response, channel, segment)
            await response.write_eof()
        return response


def _has_begun(segment: _Segment | None) -> bool:
    return segment is not None and bool(segment.content or segment.is_over)


async def _send_segment(response: web.StreamResponse, channel: _Channel, segment: _Segment) -> None:
    sent = 0

    def has_more() -> bool:
        return segment.is_over or len(segment.content) > sent

    while content := bytes(segment.content[sent:]):
        await response.write(content)
        sent += len(content)
        await channel.wait_for(has_more)
