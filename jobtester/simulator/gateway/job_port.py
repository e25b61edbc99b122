"""The gateway's job port: batch routes, result files, and responses that a fault spoils."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from jobtester.simulator.background_tasks import BackgroundTasks
from jobtester.simulator.gateway.batch import (
    BatchJob,
    BatchProcessor,
    BatchResponse,
    bad_request_response,
    retired_response,
)
from jobtester.simulator.gateway.job_request import BadRequestError, decode_job
from jobtester.simulator.go_livepeer import BATCH_PIPELINES
from jobtester.simulator.job_log import finish_response
from jobtester.simulator.timed_sockets import find_received_at

_JSON = {"Content-Type": "application/json"}
TOKEN_S = 0.01
_WORD_AND_SPACE = re.compile(r"\S+\s*")
_JSON_DEPTH = 200_000
_ENDLESS_CHUNK = b" " * 65_536


class JobPort:
    """Decodes jobs, has them processed, and writes the responses."""

    def __init__(self, processor: BatchProcessor, tasks: BackgroundTasks) -> None:
        self._processor, self._tasks = processor, tasks

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the batch routes, the health check and the result files."""
        for slug in BATCH_PIPELINES:
            router.add_route("*", f"/{slug}", self._handle_job)
        router.add_get("/healthz", _handle_health)
        router.add_get("/stream/{folder}/{file}", self._processor.result_store.handle)

    async def _handle_job(self, request: web.Request) -> web.StreamResponse:
        pipeline = request.path.strip("/")
        if self._processor.spec.retired:
            return await _create_response(request, retired_response(pipeline), pipeline)
        if request.method != "POST":
            return web.Response()
        body = await request.read()
        received_at = find_received_at(request)
        try:
            batch_request = decode_job(
                pipeline,
                request.headers.get("Content-Type", ""),
                body,
                is_llm_form=self._processor.spec.build.takes_llm_forms,
            )
        except BadRequestError as error:
            return await _create_response(request, bad_request_response(str(error)), pipeline)
        job = BatchJob(
            request=batch_request,
            request_id=request.headers.get("X-Request-ID", ""),
            requested_uri=request.query.get("orchestrator", ""),
            client_gone=asyncio.Event(),
            received_at=received_at,
        )
        # A task of its own: what the gateway does about a client that left goes on after the handler is canceled.
        task = self._tasks.start(self._processor.process(job), f"job {pipeline}")
        try:
            batch_response = await asyncio.shield(task)
        except asyncio.CancelledError:
            job.client_gone.set()
            raise
        if batch_request.values.get("stream") and batch_response.status == 200 and batch_response.payload:
            response = await _stream_chat(request, batch_response.payload)
        else:
            response = await _create_response(request, batch_response, pipeline)
        return await finish_response(request, response, job.log_entry)


async def _handle_health(_: web.Request) -> web.Response:
    return web.Response()


async def _create_response(request: web.Request, batch_response: BatchResponse, pipeline: str) -> web.StreamResponse:
    if batch_response.status is None:
        # A handler of go-livepeer that crashes ends the connection without a response.
        if request.transport is not None:
            request.transport.close()
        return web.Response()
    if batch_response.status == 200:
        faulty = await create_faulty_response(request, batch_response.fault, {})
        if faulty is not None:
            return faulty
    headers = dict(_JSON)
    if batch_response.status == 410:
        warning = f'299 - "pipeline \\"{pipeline}\\" is deprecated and no longer supported"'
        headers |= {"Deprecation": "true", "Sunset": "Wed, 31 Dec 2025 23:59:59 GMT", "Warning": warning}
    # Masks are megabytes of JSON, which takes too long for the event loop's thread.
    text = await asyncio.to_thread(json.dumps, batch_response.payload, separators=(",", ":"))
    return web.Response(status=batch_response.status, body=f"{text}\n".encode(), headers=headers)


async def _stream_chat(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    async for chunk in _iterate_chunks(payload):
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
    await response.write_eof()
    return response


async def _iterate_chunks(payload: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    choice = payload["choices"][0]
    pieces = [
        (name, word)
        for name in ("reasoning_content", "content")
        for word in _WORD_AND_SPACE.findall(choice["message"].get(name, ""))
    ] or [("content", "")]
    for index, (name, word) in enumerate(pieces):
        is_last = index == len(pieces) - 1
        delta = {
            "index": 0,
            "delta": {"role": "assistant", name: word},
            "finish_reason": choice["finish_reason"] if is_last else "",
        }
        yield {**payload, "choices": [delta], "usage": payload["usage"] if is_last else None}
        await asyncio.sleep(0 if is_last else TOKEN_S)


async def create_faulty_response(
    request: web.Request, fault: str, headers: dict[str, str]
) -> web.StreamResponse | None:
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
            return await _write_endless_body(request, headers)
        case "reset_mid_body":
            return await _reset_mid_body(request, headers)
    return None


async def _write_endless_body(request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
    await response.prepare(request)
    await response.write(b'{"text":"')
    while True:
        await response.write(_ENDLESS_CHUNK)
        await asyncio.sleep(0.001)


async def _reset_mid_body(request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "4096", **headers})
    await response.prepare(request)
    await response.write(b'{"images":[')
    if request.transport is not None:
        request.transport.abort()
    return response
