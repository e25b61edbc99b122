"""The gateway's job port: batch routes, result files, and what else answers there."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from jobtester.simulator import background_tasks, go_livepeer, job_log
from jobtester.simulator.gateway import batch, job_request

_JSON = {"Content-Type": "application/json"}
_TOKEN_S = 0.01
_WITH_BLANK = re.compile(r"\S+\s*")
_JSON_DEPTH = 200_000
_ENDLESS_CHUNK = b" " * 65_536


class JobPort:
    """Decode jobs, have them processed, and write the answers."""

    def __init__(self, jobs: batch.Batch, running: background_tasks.Tasks) -> None:
        """Process with `jobs`; what must go on after a client has left stays in `running`."""
        self._batch, self._running = jobs, running

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve the batch routes and what stands beside them."""
        for slug in go_livepeer.BATCH:
            router.add_route("*", f"/{slug}", self._handle)
        router.add_get("/healthz", _healthy)
        router.add_get("/stream/{folder}/{file}", self._batch.result_store.handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        pipeline = request.path.strip("/")
        if self._batch.spec.retired:
            return await _write(request, batch.gone(pipeline), pipeline)
        if request.method != "POST":
            return web.Response()
        body = await request.read()
        received_at = time.monotonic()
        try:
            job = job_request.decode(
                pipeline,
                request.headers.get("Content-Type", ""),
                body,
                llm_form=self._batch.spec.generation.llm_form,
            )
        except job_request.BadRequest as error:
            return await _write(request, batch.bad_request(str(error)), pipeline)
        run = batch.Attempts(
            job=job,
            request_id=request.headers.get("X-Request-ID", ""),
            wanted=request.query.get("orchestrator", ""),
            gone=asyncio.Event(),
            received_at=received_at,
        )
        task = self._running.start(self._batch.process(run), f"job {pipeline}")
        try:
            verdict = await asyncio.shield(task)
        except asyncio.CancelledError:
            run.gone.set()
            raise
        if job.values.get("stream") and verdict.status == 200 and verdict.payload:
            response = await _stream(request, verdict.payload)
        else:
            response = await _write(request, verdict, pipeline)
        return await job_log.finish(request, response, run.entry)


async def _healthy(_: web.Request) -> web.Response:
    return web.Response()


async def _write(request: web.Request, verdict: batch.Verdict, pipeline: str) -> web.StreamResponse:
    if verdict.status is None:
        return hang_up(request)
    if verdict.status == 200:
        bad = await faulty_response(request, verdict.fault, {})
        if bad is not None:
            return bad
    headers = dict(_JSON)
    if verdict.status == 410:
        warning = f'299 - "pipeline \\"{pipeline}\\" is deprecated and no longer supported"'
        headers |= {"Deprecation": "true", "Sunset": "Wed, 31 Dec 2025 23:59:59 GMT", "Warning": warning}
    text = await asyncio.to_thread(json.dumps, verdict.payload, separators=(",", ":"))
    return web.Response(status=verdict.status, body=f"{text}\n".encode(), headers=headers)


async def _stream(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    async for chunk in _chunks(payload):
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
    await response.write_eof()
    return response


async def _chunks(payload: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    whole = payload["choices"][0]
    pieces = [
        (name, word)
        for name in ("reasoning_content", "content")
        for word in _WITH_BLANK.findall(whole["message"].get(name, ""))
    ] or [("content", "")]
    for at, (name, word) in enumerate(pieces):
        last = at == len(pieces) - 1
        choice = {
            "index": 0,
            "delta": {"role": "assistant", name: word},
            "finish_reason": whole["finish_reason"] if last else "",
        }
        yield {**payload, "choices": [choice], "usage": payload["usage"] if last else None}
        await asyncio.sleep(0 if last else _TOKEN_S)


async def faulty_response(request: web.Request, fault: str, headers: dict[str, str]) -> web.StreamResponse | None:
    """Return the response of a fault that spoils the body's bytes, None for any other fault."""
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
            text = "[" * _JSON_DEPTH + "]" * _JSON_DEPTH
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
        await response.write(_ENDLESS_CHUNK)
        await asyncio.sleep(0.001)


async def _reset(request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "4096", **headers})
    await response.prepare(request)
    await response.write(b'{"images":[')
    if request.transport is not None:
        request.transport.abort()
    return response
