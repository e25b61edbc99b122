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

from jobtester.simulator import job_log, orchestrator, scenario
from jobtester.simulator.gateway import events, orchestrator_pool
from jobtester.simulator.gateway.job_port import faulty_response
from jobtester.simulator.runner import byoc_workers

Candidate = tuple[orchestrator.Orchestrator, scenario.ByocSpec, str]
_ASKING_S = 0.5
_TOKEN_S = 0.01
_TEXT = "text/plain; charset=utf-8"
_REFUSED = "Unable to parse job request, err="


class Refused(Exception):
    """The gateway answers 400 with this text before any job is sent."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the `Livepeer` header asks for."""

    capability: str
    timeout_s: float
    include: tuple[str, ...]
    exclude: tuple[str, ...]


@dataclass(slots=True)
class _Run:
    wanted: Wanted
    request_id: str
    received_at: float
    tries: int = 0
    node: orchestrator.Orchestrator | None = None
    fault: str = ""
    success: bool = False
    entry: job_log.Served | None = None


@dataclass(frozen=True, slots=True)
class ByocPort:
    """The parts of a gateway that these jobs need."""

    spec: scenario.GatewaySpec
    orchestrator_pool: orchestrator_pool.Pool
    log: job_log.Log
    report: Callable[[str, dict[str, Any]], None]

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve the route, if the gateway has it."""
        if self.spec.byoc and self.spec.generation.byoc:
            router.add_route("*", "/process/request/{path:.*}", self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return _text(405, "Method not allowed")
        body = await request.read()
        try:
            wanted = parse(request.headers.get("Livepeer", ""))
        except Refused as error:
            return _text(400, str(error))
        run = _Run(wanted, request.headers.get("X-Request-ID", ""), time.monotonic())
        try:
            response = await self._serve(request, run, body)
        except asyncio.CancelledError:
            if request.transport is None or request.transport.is_closing():
                self._record(run, None, disconnected=True)
            raise
        return await job_log.finish(request, response, run.entry)

    async def _serve(self, request: web.Request, run: _Run, body: bytes) -> web.StreamResponse:
        capability = run.wanted.capability
        candidates = await self._candidates(run.wanted)
        if not candidates:
            self._record(run, 400)
            return _text(400, f"No orchestrators found for capability {capability}")
        for node, offer, fault in candidates:
            run.tries += 1
            run.node, run.fault = node, fault
            try:
                async with asyncio.timeout(run.wanted.timeout_s):
                    await node.run_byoc(offer, fault)
                    reply = await asyncio.to_thread(
                        byoc_workers.work, capability, offer.model, body, fault, offer.thinking_tokens
                    )
            except orchestrator.AttemptFailed as error:
                if error.bad_request:
                    self._record(run, 400)
                    return _text(400, error.bad_request + "\n")
                continue
            except TimeoutError:
                continue
            if reply.status >= 400:
                self._record(run, reply.status)
                return _text(reply.status, reply.body.decode() + "\n")
            return await self._succeeded(request, run, reply)
        self._record(run, 200)
        return web.Response()

    async def _succeeded(self, request: web.Request, run: _Run, reply: byoc_workers.Reply) -> web.StreamResponse:
        assert run.node is not None
        run.success = run.fault != "gateway_500"
        self._record(run, 200 if run.success else 500)
        if not run.success:
            return _text(500, "Error reading response")
        headers = {"X-Orchestrator-Url": run.node.spec.service_uri, "Livepeer-Balance": "1000000", "X-Metadata": ""}
        bad = await faulty_response(request, run.fault, headers)
        if bad is not None:
            return bad
        if not reply.lines:
            return web.Response(body=reply.body, headers={**headers, "Content-Type": _TEXT})
        response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        for line in reply.lines:
            if "[DONE]" in line:
                await response.write(b'data: {"balance": 1000000}\n\n')
            await response.write(f"{line}\n\n".encode())
            await asyncio.sleep(_TOKEN_S)
        await response.write_eof()
        return response

    async def _candidates(self, wanted: Wanted) -> list[Candidate]:
        """Ask the listed ones for a token, 500 ms each, and keep those with the capability and a free slot."""
        listed = [
            uri
            for uri in await self.orchestrator_pool.refresh()
            if (not wanted.include or uri in wanted.include) and uri not in wanted.exclude
        ]
        nodes = [node for uri in listed if (node := self.orchestrator_pool.find(uri)) is not None]
        answered = await asyncio.gather(*(_token(node) for node in nodes))
        offers = [
            (node, offer, node.fault_for(wanted.capability))
            for node, alive in zip(nodes, answered, strict=True)
            if alive and (offer := node.capability(wanted.capability)) is not None and node.has_room(offer)
        ]
        return [candidate for candidate in offers if candidate[2] != "busy"]

    def _record(self, run: _Run, status: int | None, *, disconnected: bool = False) -> None:
        spec = run.node.spec if run.node else scenario.OrchestratorSpec(address="")
        offer = run.node.capability(run.wanted.capability) if run.node else None
        run.entry = self.log.add(
            gateway=self.spec.name,
            mode=self.spec.mode,
            request_id=run.request_id,
            pipeline=run.wanted.capability,
            model=offer.model if offer else "",
            address=spec.address,
            service_uri=spec.service_uri,
            received_at=run.received_at,
            status=status,
            success=run.success,
            tries=run.tries,
            fault=run.fault,
            disconnected=disconnected,
        )
        self.report(
            "job_gateway",
            events.byoc_completed(
                run.request_id,
                run.wanted.capability,
                address=spec.address,
                url=spec.service_uri,
                took_s=time.monotonic() - run.received_at,
                status=status or 0,
                error="" if run.success else run.fault or "no orchestrators available",
            ),
        )


def parse(header: str) -> Wanted:
    """Read the `Livepeer` header. Refused says what go-livepeer would."""
    try:
        raw = base64.b64decode(header, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"{_REFUSED}ErrorSegEncoding") from error
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise Refused(f"{_REFUSED}unexpected end of JSON input") from error
    if not isinstance(data, dict):
        raise Refused(f"{_REFUSED}json: cannot unmarshal into Go value of type core.JobRequest")
    if not data.get("timeout_seconds"):
        raise Refused(f"{_REFUSED}no timeout_seconds set with request, timeout_seconds is required")
    _inner(data, "request", "Unable to unmarshal job request err=")
    parameters = _inner(data, "parameters", "Unable to unmarshal job parameters err=")
    chosen = parameters.get("orchestrators") or {} if isinstance(parameters, dict) else {}
    return Wanted(
        capability=str(data.get("capability") or ""),
        timeout_s=float(data["timeout_seconds"]),
        include=tuple(chosen.get("include") or ()),
        exclude=tuple(chosen.get("exclude") or ()),
    )


def _inner(data: dict[str, Any], name: str, refusal: str) -> Any:
    try:
        return json.loads(data.get(name) or "")
    except (TypeError, ValueError) as error:
        raise Refused(f"{refusal}unexpected end of JSON input") from error


async def _token(node: orchestrator.Orchestrator) -> bool:
    try:
        async with asyncio.timeout(_ASKING_S):
            await node.info()
    except TimeoutError:
        return False
    return True


def _text(status: int, message: str) -> web.Response:
    return web.Response(status=status, body=f"{message}\n".encode(), headers={"Content-Type": _TEXT})
