"""Answers whose very bytes are bad, and connections that end before their answer does."""

from __future__ import annotations

import asyncio

from aiohttp import web

_DEPTH = 200_000
_CHUNK = b" " * 65_536


async def answer(request: web.Request, fault: str, headers: dict[str, str]) -> web.StreamResponse | None:
    """Give the fault's answer; None if the fault is not about the answer's bytes."""
    match fault:
        case "empty":
            return web.Response(headers=headers)
        case "garbage_json":
            return web.Response(text='{"images":[{"url":\n', content_type="application/json", headers=headers)
        case "html":
            return web.Response(text="<html><body>Welcome</body></html>", content_type="text/html", headers=headers)
        case "wrong_shape":
            return web.Response(text='{"result":{"ok":true}}\n', content_type="application/json", headers=headers)
        case "deep_json":
            text = "[" * _DEPTH + "]" * _DEPTH
            return web.Response(text=text, content_type="application/json", headers=headers)
        case "endless_body":
            return await _endless(request, headers)
        case "reset_mid_body":
            return await _reset(request, headers)
    return None


def hang_up(request: web.Request) -> web.Response:
    """Close the connection without an answer, as a crashed handler does."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


async def _endless(request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
    await response.prepare(request)
    await response.write(b'{"text":"')
    while True:
        await response.write(_CHUNK)
        await asyncio.sleep(0.001)


async def _reset(request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "4096", **headers})
    await response.prepare(request)
    await response.write(b'{"images":[')
    if request.transport is not None:
        request.transport.abort()
    return response
