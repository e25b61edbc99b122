"""Show one result with everything behind it, and serve the files that its page refers to.

What a browser gets as a file is either a test input of the operator's or was made by the tester; all of it is sent
with a type of its own, and may neither run nor load anything.
"""

from __future__ import annotations

import asyncio
from pathlib import PurePath
from typing import NoReturn

from aiohttp import web

from jobtester.domain.result_details import RECEIVED_TYPES
from jobtester.store.full_results import FullResult
from jobtester.web.access import is_restricted
from jobtester.web.context import CONTEXT
from jobtester.web.curl import InputChangedError, find_input, rebuild_body
from jobtester.web.rendering import MISSING_ADVICE, find_base, render, render_missing
from jobtester.web.schemas import FullResultSchema, explain_reason

routes = web.RouteTableDef()

_FILE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, max-age=3600",
}
_INPUT_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
}


@routes.get("/r/{id}")
async def show_result(request: web.Request) -> web.Response:
    """Show one result with everything behind it."""
    full = await request.app[CONTEXT].stores.full_results.get(request.match_info["id"])
    if full is None:
        return await render_missing(request, "No result has this address.", MISSING_ADVICE)
    reason = explain_reason(full.result.reason, full.result.outcome)
    shown = await describe_result(request, full)
    return await render(request, "result.html", {"result": full.result, "reason": reason, "full": shown})


@routes.get("/r/{id}/received")
async def send_received(request: web.Request) -> web.Response:
    """Send what came back for a job, made small."""
    file = await request.app[CONTEXT].stores.full_results.received_file(request.match_info["id"])
    if file is None or file[0] not in RECEIVED_TYPES:
        raise web.HTTPNotFound(text="nothing is kept of this answer\n")
    content_type, content = file
    return web.Response(body=content, content_type=content_type, headers=_FILE_HEADERS)


@routes.get("/r/{id}/input/{field}")
async def send_input(request: web.Request) -> web.Response:
    """Send a test input exactly as a job's request had it."""
    context, full = request.app[CONTEXT], await _find(request)
    facts = full.details.get("inputs", {}).get(request.match_info["field"])
    if facts is None:
        raise web.HTTPNotFound(text="the request has no such file\n")
    try:
        asset = await asyncio.to_thread(find_input, facts, context.assets())
    except InputChangedError as error:
        _refuse_changed(error)
    content_type = _INPUT_TYPES.get(PurePath(asset.name).suffix.lower(), "application/octet-stream")
    return web.Response(body=asset.content, content_type=content_type, headers=_FILE_HEADERS)


@routes.get("/r/{id}/body")
async def send_body(request: web.Request) -> web.Response:
    """Send the body of a job's request, byte for byte."""
    context, full = request.app[CONTEXT], await _find(request)
    try:
        body = await asyncio.to_thread(rebuild_body, full, context.assets())
    except InputChangedError as error:
        _refuse_changed(error)
    headers = {**_FILE_HEADERS, "Content-Disposition": "attachment; filename=body"}
    return web.Response(body=body, content_type="application/octet-stream", headers=headers)


async def describe_result(request: web.Request, full: FullResult) -> FullResultSchema:
    """Return the schema of a result; its addresses are those under which the caller reaches the tester."""
    base_url, needs_token = find_base(request), is_restricted(request.app[CONTEXT].settings().server)
    # In a thread: an answer of thousands of words takes milliseconds to compare.
    return await asyncio.to_thread(FullResultSchema.from_full_result, full, base_url, needs_token=needs_token)


async def _find(request: web.Request) -> FullResult:
    full = await request.app[CONTEXT].stores.full_results.get(request.match_info["id"])
    if full is None or not full.details.get("request"):
        raise web.HTTPNotFound(text="no such request is recorded\n")
    return full


def _refuse_changed(error: InputChangedError) -> NoReturn:
    raise web.HTTPGone(text=f"{error}\n") from error
