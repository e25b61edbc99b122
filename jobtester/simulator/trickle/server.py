"""The routes below `/ai/trickle/` by which clients write, read and close the channels of an orchestrator."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from jobtester.simulator.http_errors import create_error_response
from jobtester.simulator.trickle.channel import Channel, Segment

BASE_PATH = "/ai/trickle"
SEQUENCE, LATEST, CLOSED, RESET = "Lp-Trickle-Seq", "Lp-Trickle-Latest", "Lp-Trickle-Closed", "Lp-Trickle-Reset"

_GONE = 470
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MIN_NUMBER, _MIN_READ_NUMBER = -1, -2


@dataclass(frozen=True, slots=True)
class TrickleTimes:
    """`continue_s`: how often an idle POST gets "100 Continue". `idle_s`: when a channel without segments closes."""

    continue_s: float = 10.0
    idle_s: float = 300.0


class TrickleServer:
    """The channels of one orchestrator.

    Only the orchestrator opens them, with create(); every client that knows a name may read, write and close. The
    application that gets its routes needs `handler_cancellation`, so that a client that hangs up ends its request.
    """

    def __init__(self, times: TrickleTimes | None = None) -> None:
        self._times = times or TrickleTimes()
        self._channels: dict[str, Channel] = {}

    def create(self, name: str, content_type: str) -> Channel:
        """Open a channel; one that has the name already is closed."""
        self.close(name)
        channel = Channel(name, content_type, lambda: self.close(name), self._times.idle_s)
        self._channels[name] = channel
        return channel

    def find(self, name: str) -> Channel | None:
        """Return an open channel."""
        return self._channels.get(name)

    def exists(self, name: str) -> bool:
        """Return True if a channel is open."""
        return name in self._channels

    def close(self, name: str) -> None:
        """Close a channel, if it is open."""
        channel = self._channels.pop(name, None)
        if channel is not None:
            channel.close()

    def close_all(self) -> None:
        """Close every channel; the server may be used again."""
        for name in list(self._channels):
            self.close(name)

    def add_routes(self, router: web.UrlDispatcher, base_path: str = BASE_PATH) -> None:
        """Add the routes by which clients use channels."""
        channel, segment = base_path + "/{channel}", base_path + "/{channel}/{number}"
        router.add_post(channel, self._refuse_creation)
        router.add_delete(channel, self._delete_channel)
        router.add_get(segment, self._get, allow_head=False)
        router.add_post(segment, self._post)
        router.add_delete(segment, self._delete_segment)

    async def _refuse_creation(self, request: web.Request) -> web.Response:
        # One that is there already needs no creation: that is no error.
        if self._find(request) is None:
            return create_error_response(404, "Stream not found")
        return web.Response()

    async def _delete_channel(self, request: web.Request) -> web.Response:
        if self._find(request) is None:
            return create_error_response(400, "Invalid stream")
        self.close(request.match_info["channel"])
        return web.Response()

    async def _delete_segment(self, request: web.Request) -> web.Response:
        channel, number = self._find(request), _parse_number(request)
        if channel is None:
            return create_error_response(400, "Invalid stream")
        if number is None:
            return create_error_response(400, "Invalid idx")
        segment = channel.segment(number)
        if segment is None:
            return create_error_response(400, "Nonexistent segment")
        segment.finish()
        return web.Response()

    async def _post(self, request: web.Request) -> web.Response:
        channel, number = self._find(request), _parse_number(request)
        if channel is None:
            response = create_error_response(404, "Stream not found")
            response.force_close()
            return response
        if number is None or number < _MIN_NUMBER:
            return create_error_response(400, "Invalid idx")
        segment = channel.open_for_writing(number, reset=request.headers.get(RESET) == "1")
        is_complete = not segment.is_over and await self._receive(request, channel, segment)
        response = web.Response(headers={SEQUENCE: str(segment.number)})
        if channel.is_closed:
            response.headers[CLOSED] = "terminated"
        if not is_complete:
            response.force_close()
        return response

    async def _receive(self, request: web.Request, channel: Channel, segment: Segment) -> bool:
        """Write a request's body to a segment; return False if the segment ended before the body."""
        is_over = asyncio.ensure_future(segment.wait_until_over())
        reading = asyncio.ensure_future(request.content.readany())
        try:
            while True:
                done, _ = await asyncio.wait(
                    {is_over, reading}, timeout=self._times.continue_s, return_when=asyncio.FIRST_COMPLETED
                )
                if segment.is_over:
                    return False
                if not done:
                    _send_continue(request)
                    continue
                data = reading.result()
                if not data and request.content.at_eof():
                    segment.finish()
                    return True
                channel.append(segment, data)
                reading = asyncio.ensure_future(request.content.readany())
        finally:
            # A writer that hangs up leaves its segment open, as in go-livepeer: readers wait for the next one.
            is_over.cancel()
            reading.cancel()
            await asyncio.gather(is_over, reading, return_exceptions=True)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        channel = self._find(request)
        if channel is None:
            return create_error_response(404, "Stream not found")
        if request.match_info["number"] == "next":
            return web.Response(text=str(channel.next_number), headers={LATEST: str(channel.latest)})
        number = _parse_number(request)
        if number is None:
            return create_error_response(400, "Invalid idx")
        segment = channel.open_for_reading(number) if number >= _MIN_READ_NUMBER else None
        if segment is None:
            headers = {SEQUENCE: str(number), LATEST: str(channel.latest)}
            return web.Response(status=_GONE, text="Entry not found", headers=headers)
        return await self._send(request, channel, segment)

    async def _send(self, request: web.Request, channel: Channel, segment: Segment) -> web.StreamResponse:
        data = await segment.read(0)
        headers = {SEQUENCE: str(segment.number)}
        if not data:
            return web.Response(headers={**headers, CLOSED: "terminated"} if channel.is_closed else headers)
        headers["Content-Type"] = channel.content_type
        if segment.number != channel.latest:
            headers[LATEST] = str(channel.latest)
        response = web.StreamResponse(headers=headers)
        with suppress(ConnectionError):  # the reader has gone
            await response.prepare(request)
            offset = 0
            while data:
                await response.write(data)
                offset += len(data)
                data = await segment.read(offset)
            await response.write_eof()
        return response

    def _find(self, request: web.Request) -> Channel | None:
        return self.find(request.match_info["channel"])


def _parse_number(request: web.Request) -> int | None:
    text = request.match_info["number"]
    digits = text.removeprefix("-")
    # int() takes more than a server in Go does: underscores, spaces, digits of other scripts.
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


def _send_continue(request: web.Request) -> None:
    if request.transport is not None and not request.transport.is_closing():
        request.transport.write(_CONTINUE)
