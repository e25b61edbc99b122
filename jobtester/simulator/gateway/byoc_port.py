"""Jobs for external capabilities on the gateway's job port: /process/request/<path>."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from jobtester.simulator.gateway import events
from jobtester.simulator.gateway.job_port import TOKEN_S, create_faulty_response
from jobtester.simulator.gateway.orchestrator_pool import OrchestratorPool
from jobtester.simulator.job_log import JobLog, LoggedJob, finish_response
from jobtester.simulator.orchestrator import AttemptFailedError, Orchestrator
from jobtester.simulator.runner.byoc_workers import WorkerResponse, run_worker
from jobtester.simulator.scenario import ByocSpec, GatewaySpec, OrchestratorSpec
from jobtester.simulator.timed_sockets import find_received_at

_Candidate = tuple[Orchestrator, ByocSpec, str]  # node, what it advertises, the fault of the attempt
_TOKEN_REQUEST_S = 0.5
_TEXT_TYPE = "text/plain; charset=utf-8"
_PARSE_ERROR = "Unable to parse job request, err="


class ByocRequestError(Exception):
    """The gateway responds 400 with this text before it sends any job."""


@dataclass(frozen=True, slots=True)
class ByocRequest:
    """The content of the `Livepeer` header. `include` and `exclude` are service URIs."""

    capability: str
    timeout_s: float
    include: tuple[str, ...]
    exclude: tuple[str, ...]


@dataclass(slots=True)
class _ByocJob:
    request: ByocRequest
    request_id: str
    received_at: float
    tries: int = 0
    node: Orchestrator | None = None
    fault: str = ""
    success: bool = False
    log_entry: LoggedJob | None = None


@dataclass(frozen=True, slots=True)
class ByocPort:
    """Serves jobs for external capabilities with the parts of one gateway."""

    spec: GatewaySpec
    orchestrator_pool: OrchestratorPool
    job_log: JobLog
    emit_event: Callable[[str, dict[str, Any]], None]

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the route, if the gateway has it."""
        if self.spec.byoc and self.spec.build.has_byoc:
            router.add_route("*", "/process/request/{path:.*}", self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return _text_response(405, "Method not allowed")
        body = await request.read()
        try:
            byoc_request = parse_livepeer_header(request.headers.get("Livepeer", ""))
        except ByocRequestError as error:
            return _text_response(400, str(error))
        job = _ByocJob(byoc_request, request.headers.get("X-Request-ID", ""), find_received_at(request))
        try:
            response = await self._serve(request, job, body)
        except asyncio.CancelledError:
            if request.transport is None or request.transport.is_closing():
                self._record(job, None, disconnected=True)
            raise
        return await finish_response(request, response, job.log_entry)

    async def _serve(self, request: web.Request, job: _ByocJob, body: bytes) -> web.StreamResponse:
        capability = job.request.capability
        candidates = await self._find_candidates(job.request)
        if not candidates:
            self._record(job, 400)
            return _text_response(400, f"No orchestrators found for capability {capability}")
        for node, offer, fault in candidates:
            job.tries += 1
            job.node, job.fault = node, fault
            try:
                async with asyncio.timeout(job.request.timeout_s):
                    await node.run_byoc_job(offer, fault)
                    worker_response = await asyncio.to_thread(
                        run_worker, capability, offer.model, body, fault, offer.thinking_tokens
                    )
            except AttemptFailedError as error:
                if error.bad_request:
                    self._record(job, 400)
                    return _text_response(400, error.bad_request + "\n")
                continue
            except TimeoutError:
                continue
            # A worker's refusal is passed on as it is, and ends the tries.
            if worker_response.status >= 400:
                self._record(job, worker_response.status)
                return _text_response(worker_response.status, worker_response.body.decode() + "\n")
            return await self._send_success(request, job, worker_response)
        self._record(job, 200)  # go-livepeer responds 200 with an empty body when every candidate has failed
        return web.Response()

    async def _send_success(
        self, request: web.Request, job: _ByocJob, worker_response: WorkerResponse
    ) -> web.StreamResponse:
        assert job.node is not None
        job.success = job.fault != "gateway_500"
        self._record(job, 200 if job.success else 500)
        if not job.success:
            return _text_response(500, "Error reading response")
        headers = {"X-Orchestrator-Url": job.node.spec.service_uri, "Livepeer-Balance": "1000000", "X-Metadata": ""}
        faulty = await create_faulty_response(request, job.fault, headers)
        if faulty is not None:
            return faulty
        if not worker_response.lines:
            return web.Response(body=worker_response.body, headers={**headers, "Content-Type": _TEXT_TYPE})
        response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        for line in worker_response.lines:
            if "[DONE]" in line:
                await response.write(b'data: {"balance": 1000000}\n\n')
            await response.write(f"{line}\n\n".encode())
            await asyncio.sleep(TOKEN_S)
        await response.write_eof()
        return response

    async def _find_candidates(self, request: ByocRequest) -> list[_Candidate]:
        """Return the listed orchestrators that answer a token request, have the capability and a free slot."""
        uris = [
            uri
            for uri in await self.orchestrator_pool.refresh_uris()
            if (not request.include or uri in request.include) and uri not in request.exclude
        ]
        nodes = [node for uri in uris if (node := self.orchestrator_pool.find_node(uri)) is not None]
        answered = await asyncio.gather(*(_answers_token_request(node) for node in nodes))
        candidates = [
            (node, offer, node.draw_fault(request.capability))
            for node, is_alive in zip(nodes, answered, strict=True)
            if is_alive
            and (offer := node.find_capability(request.capability)) is not None
            and node.has_free_slot(offer)
        ]
        return [candidate for candidate in candidates if candidate[2] != "busy"]

    def _record(self, job: _ByocJob, status: int | None, *, disconnected: bool = False) -> None:
        spec = job.node.spec if job.node else OrchestratorSpec(address="")
        offer = job.node.find_capability(job.request.capability) if job.node else None
        job.log_entry = self.job_log.add(
            gateway=self.spec.name,
            mode=self.spec.mode,
            request_id=job.request_id,
            pipeline=job.request.capability,
            model=offer.model if offer else "",
            address=spec.address,
            service_uri=spec.service_uri,
            received_at=job.received_at,
            status=status,
            success=job.success,
            tries=job.tries,
            fault=job.fault,
            disconnected=disconnected,
        )
        self.emit_event(
            "job_gateway",
            events.byoc_completed(
                job.request_id,
                job.request.capability,
                address=spec.address,
                url=spec.service_uri,
                took_s=time.monotonic() - job.received_at,
                status=status or 0,
                error="" if job.success else job.fault or "no orchestrators available",
            ),
        )


def parse_livepeer_header(header: str) -> ByocRequest:
    """Return the content of the `Livepeer` header. ByocRequestError has go-livepeer's text."""
    try:
        raw = base64.b64decode(header, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ByocRequestError(f"{_PARSE_ERROR}ErrorSegEncoding") from error
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise ByocRequestError(f"{_PARSE_ERROR}unexpected end of JSON input") from error
    if not isinstance(data, dict):
        raise ByocRequestError(f"{_PARSE_ERROR}json: cannot unmarshal into Go value of type core.JobRequest")
    if not data.get("timeout_seconds"):
        raise ByocRequestError(f"{_PARSE_ERROR}no timeout_seconds set with request, timeout_seconds is required")
    _parse_nested_json(data, "request", "Unable to unmarshal job request err=")
    parameters = _parse_nested_json(data, "parameters", "Unable to unmarshal job parameters err=")
    selected = parameters.get("orchestrators") or {} if isinstance(parameters, dict) else {}
    return ByocRequest(
        capability=str(data.get("capability") or ""),
        timeout_s=float(data["timeout_seconds"]),
        include=tuple(selected.get("include") or ()),
        exclude=tuple(selected.get("exclude") or ()),
    )


def _parse_nested_json(data: dict[str, Any], name: str, error_prefix: str) -> Any:
    try:
        return json.loads(data.get(name) or "")
    except (TypeError, ValueError) as error:
        raise ByocRequestError(f"{error_prefix}unexpected end of JSON input") from error


async def _answers_token_request(node: Orchestrator) -> bool:
    try:
        async with asyncio.timeout(_TOKEN_REQUEST_S):
            await node.answer_info()
    except TimeoutError:
        return False
    return True


def _text_response(status: int, message: str) -> web.Response:
    return web.Response(status=status, body=f"{message}\n".encode(), headers={"Content-Type": _TEXT_TYPE})
