"""What an orchestrator serves at its service URI: discovery, the apps of its runners, sessions and payments."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from aiohttp import web

from jobtester.simulator.background_tasks import run_unless_set
from jobtester.simulator.job_log import JobLog, LoggedRunnerRequest
from jobtester.simulator.live_runner import discovery, errors
from jobtester.simulator.live_runner.app_caller import AppCaller, RunnerCall, break_connection
from jobtester.simulator.live_runner.errors import RequestRefusedError
from jobtester.simulator.live_runner.payment import Payment, PaymentLedger, PaymentMeter
from jobtester.simulator.live_runner.runner import LiveRunner, Session
from jobtester.simulator.live_runner.video_apps import LoggedVideoStream, VideoApps
from jobtester.simulator.orchestrator import Orchestrator
from jobtester.simulator.service_listener import not_found_text
from jobtester.simulator.trickle.server import TrickleServer

_MAX_BODY_BYTES = 64 * 2**20


_Handler = Callable[[RunnerCall], Awaitable[web.StreamResponse]]


class ServicePort:
    """The routes of one orchestrator; `app_runner` holds the server for the sockets of its service listener."""

    def __init__(
        self,
        node: Orchestrator,
        seed: int,
        number: int,
        ledger: PaymentLedger,
        job_log: JobLog,
        channels: TrickleServer,
        add_routes: Sequence[Callable[[web.UrlDispatcher], None]] = (),
    ) -> None:
        """Create a stopped server. `channels` are its own; `add_routes` add the routes of what else it serves."""
        self.node = node
        self.discovery_requests = 0
        self.runners = [
            LiveRunner(spec, f"{seed}/{node.spec.address}/{number}/{index}")
            for index, spec in enumerate(node.spec.runners)
        ]
        self._ledger, self._job_log = ledger, job_log
        self._random = random.Random(f"{seed}/{node.spec.address}/{number}")
        self._video_apps = VideoApps(channels)
        self._apps = AppCaller(node, self._video_apps)
        # Handlers are canceled when a client hangs up: the orchestrator returns the slot at once.
        self.app_runner = web.AppRunner(
            self._create_application((channels.add_routes, *add_routes)),
            access_log=None,
            shutdown_timeout=0.1,
            handler_cancellation=True,
            auto_decompress=False,
        )
        node.restart_callbacks += [self._lose_all_sessions, lambda: self._break_tls(is_broken=False)]

    @property
    def video_streams(self) -> list[LoggedVideoStream]:
        """Return what the video apps did, in their order."""
        return self._video_apps.streams

    async def start(self) -> Callable[[], asyncio.BaseProtocol]:
        """Start the server and return what creates the protocol of a connection."""
        await self.app_runner.setup()
        server = self.app_runner.server
        assert server is not None
        return server

    async def stop(self) -> None:
        """Close every connection."""
        for runner in self.runners:
            for meter in runner.meters.values():
                meter.stop()
        await self._video_apps.stop()
        await self.app_runner.cleanup()

    def _lose_all_sessions(self) -> None:
        for runner in self.runners:
            runner.lose_sessions()

    def _break_tls(self, *, is_broken: bool) -> None:
        if self.node.service_listener is not None:
            self.node.service_listener.is_tls_broken = is_broken

    def _create_application(self, add_routes: Sequence[Callable[[web.UrlDispatcher], None]]) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        router = app.router
        for add in add_routes:
            add(router)
        spec = self.node.spec
        if not spec.runners and not spec.live_runners:
            router.add_route("*", "/{path:.*}", self._handle_unknown_path)
            return app
        router.add_get("/discovery", self._handle_discovery)
        router.add_get("/files/{name}", self._handle_file)
        router.add_route("*", "/apps/{runner}/app", self._handle_bare_url)
        router.add_route("*", "/apps/{runner}/app/{path:.*}", self._log_as("app", self._run_single_shot))
        router.add_post("/apps/{runner}/session", self._log_as("reserve", self._reserve))
        session = "/apps/{runner}/session/{session}"
        router.add_route("*", session + "/app/{path:.*}", self._log_as("call", self._call_session))
        router.add_post(session + "/stop", self._log_as("stop", self._stop))
        router.add_post(session + "/payment", self._log_as("payment", self._receive_payment))
        router.add_route("*", "/run/{key}/{path:.*}", self._log_as("call", self._call_proxy))
        return app

    async def _handle_unknown_path(self, _: web.Request) -> web.Response:
        return RequestRefusedError(404, not_found_text(self.node.spec.version)).to_response()

    async def _handle_discovery(self, request: web.Request) -> web.StreamResponse:
        self.discovery_requests += 1
        spec = self.node.spec
        if spec.fault == "discovery_fails":
            return RequestRefusedError(500, "Internal Server Error").to_response()
        if spec.fault in ("discovery_huge", "discovery_slow"):
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            async for chunk in discovery.stream_faulty_body(spec.fault):
                await response.write(chunk)
            return response
        if spec.fault == "tls_breaks":
            self._break_tls(is_broken=True)
        shuffled = self._random.sample(self.runners, len(self.runners))
        entries = discovery.list_runners(spec, shuffled)
        body = discovery.create_faulty_body(spec, entries[0].get("runners", []))
        content_type = "text/html" if spec.fault == "discovery_html" else "application/json"
        return web.Response(body=body or json.dumps(entries).encode(), content_type=content_type)

    async def _handle_file(self, request: web.Request) -> web.Response:
        content = self._apps.find_file(request.match_info["name"])
        if content is None:
            raise web.HTTPNotFound
        return web.Response(body=content, content_type="image/png")

    async def _handle_bare_url(self, request: web.Request) -> web.Response:
        query = f"?{request.query_string}" if request.query_string else ""
        return web.Response(status=307, headers={"Location": f"{request.path}/{query}"})

    def _log_as(self, kind: str, handle: _Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return a handler that logs each request before its last byte is sent."""

        async def handle_and_log(request: web.Request) -> web.StreamResponse:
            call = RunnerCall(kind, request, path="/" + request.match_info.get("path", ""))
            try:
                response = await handle(call)
            except RequestRefusedError as error:
                call.outcome, call.error = "refused", error.text
                response = error.to_response()
            except (asyncio.CancelledError, ConnectionError):
                call.outcome = "disconnected"
                self._add_to_log(call, None)
                raise
            is_answered = call.outcome != "broken" or response.prepared
            entry = self._add_to_log(call, response.status if is_answered else None)
            with suppress(ConnectionError):  # the client has gone; what it was sent is logged
                await response.prepare(request)
                await response.write_eof()
            entry.sent_at = time.monotonic()
            return response

        return handle_and_log

    def _add_to_log(self, call: RunnerCall, status: int | None) -> LoggedRunnerRequest:
        spec = call.runner.spec if call.runner else None
        return self._job_log.add_runner_request(
            kind=call.kind,
            request_id=call.request.headers.get("X-Request-ID", ""),
            address=self.node.spec.address,
            service_uri=self.node.spec.service_uri,
            runner_id=call.runner.runner_id if call.runner else "",
            app=spec.app if spec else "",
            version=spec.version if spec else "",
            mode=spec.mode if spec else "",
            method=call.request.method,
            path=call.path,
            received_at=call.received_at,
            outcome=call.outcome,
            status=status,
            error=call.error,
            fault=call.fault,
            session_id=call.session_id,
            manifest_id=call.manifest_id,
            payer=call.request.headers.get("Livepeer-Payer-Address", ""),
            paid_wei=call.paid_wei,
        )

    def _find_runner(self, call: RunnerCall) -> LiveRunner:
        name = call.request.match_info["runner"]
        call.runner = next((runner for runner in self.runners if name in (runner.runner_id, runner.url_name)), None)
        if call.runner is None:
            raise RequestRefusedError(404, errors.RUNNER_NOT_FOUND)
        call.fault = call.runner.draw_fault(self.node.spec)
        call.runner.require_found(self.node.spec)
        return call.runner

    async def _run_single_shot(self, call: RunnerCall) -> web.StreamResponse:
        runner = self._find_runner(call)
        if runner.spec.mode != "single-shot":
            raise RequestRefusedError(400, errors.NOT_SINGLE_SHOT)
        payment, challenge = self._require_payment(call, runner)
        if challenge is not None:
            return challenge
        session = Session(call.manifest_id or runner.create_session_id(), f"{random.getrandbits(128):032x}", "")
        call.session_id = session.session_id
        with runner.occupy_slot():
            if payment is None:
                return await self._apps.call_app(call, runner, session, self._base_url)
            meter = PaymentMeter(payment)
            runner.meters[session.session_id] = meter
            try:
                response = await run_unless_set(
                    meter.lapsed, self._apps.call_app(call, runner, session, self._base_url)
                )
            finally:
                meter.stop()
                runner.meters.pop(session.session_id, None)
            return break_connection(call) if response is None else response

    async def _reserve(self, call: RunnerCall) -> web.StreamResponse:
        runner = self._find_runner(call)
        if runner.spec.mode != "persistent":
            raise RequestRefusedError(400, errors.NOT_PERSISTENT)
        payment, challenge = self._require_payment(call, runner)
        if challenge is not None:
            return challenge
        session_id = call.session_id = call.manifest_id or runner.create_session_id()
        session = runner.open_session(session_id)
        if payment is not None:
            runner.attach_meter(session, PaymentMeter(payment, lambda: runner.end_lapsed_session(session_id)))
        control_url = self._control_url(runner, session_id)
        app_url = f"{control_url}/app"
        if runner.spec.path_kind == "proxied":
            app_url = f"{self._base_url}/run/{session.proxy_key}"
        return web.json_response({"session_id": session_id, "app_url": app_url, "control_url": control_url})

    async def _call_session(self, call: RunnerCall) -> web.StreamResponse:
        runner = self._find_runner(call)
        call.session_id = call.request.match_info["session"]
        return await self._apps.call_app(call, runner, self._use_session(call, runner), self._base_url)

    async def _call_proxy(self, call: RunnerCall) -> web.StreamResponse:
        key = call.request.match_info["key"]
        for runner in self.runners:
            runner.is_healthy()  # a gap that nobody has looked at yet has lost its sessions
            for session in runner.sessions.values():
                if session.proxy_key == key:
                    call.runner, call.session_id = runner, session.session_id
                    call.fault = runner.draw_fault(self.node.spec)
                    return await self._apps.call_app(call, runner, self._use_session(call, runner), self._base_url)
        raise RequestRefusedError(404, errors.PROXY_NOT_FOUND)

    def _use_session(self, call: RunnerCall, runner: LiveRunner) -> Session:
        session = runner.find_session(call.session_id)
        session.calls += 1
        if call.fault == "session_lost":
            runner.lose_sessions()
            is_proxied = runner.spec.path_kind == "proxied"
            raise RequestRefusedError(404, errors.PROXY_NOT_FOUND if is_proxied else errors.SESSION_NOT_FOUND)
        return session

    async def _stop(self, call: RunnerCall) -> web.StreamResponse:
        runner = self._find_runner(call)
        call.session_id = call.request.match_info["session"]
        runner.stop_session(call.session_id)
        return web.Response(status=204)

    async def _receive_payment(self, call: RunnerCall) -> web.StreamResponse:
        runner = self._find_runner(call)
        call.session_id = call.request.match_info["session"]
        meter = runner.meters.get(call.session_id)
        if meter is None:
            raise RequestRefusedError(404, errors.SESSION_NOT_FOUND)
        payment = self._ledger.find_payment(call.request.headers, runner.runner_id)
        if payment is None or payment.challenge.manifest_id != call.session_id:
            raise RequestRefusedError(403, errors.MISMATCHED_MANIFEST)
        if meter.is_fixed:
            raise RequestRefusedError(409, errors.FIXED_PRICE_PAID)
        self._accept_payment(call, payment, is_first=False)
        meter.add(payment)
        return web.Response(body=os.urandom(32), content_type="application/octet-stream")

    def _require_payment(self, call: RunnerCall, runner: LiveRunner) -> tuple[Payment | None, web.Response | None]:
        """Take the payment of a request that needs a slot, and return it or the challenge that asks for it.

        Both are None for a runner without a price. A full runner says so before it takes or asks for money.
        """
        runner.require_slot(call.fault)
        if call.fault == "runner_price_unavailable":
            raise RequestRefusedError(503, errors.PRICE_UNAVAILABLE)
        spec = runner.spec
        if not spec.price:
            return None, None
        payment = self._ledger.find_payment(call.request.headers, runner.runner_id)
        if payment is not None and call.fault != "runner_repeats_402":
            self._accept_payment(call, payment, is_first=True)
            return payment, None
        call.outcome = "challenged"
        call.manifest_id = runner.create_session_id()
        challenge = self._ledger.issue_challenge(
            manifest_id=call.manifest_id,
            runner_id=runner.runner_id,
            payer=call.request.headers.get("Livepeer-Payer-Address", ""),
            price=spec.price * (10 if call.fault == "runner_asks_more" else 1),
            unit=spec.unit,
            interval_s=spec.payment_interval_s,
        )
        body = {
            "payment_params": challenge.payment_params,
            "orchestrator": self.node.spec.service_uri,
            "manifest_id": challenge.manifest_id,
            "payment_url": f"{self._control_url(runner, challenge.manifest_id)}/payment",
        }
        return None, web.json_response(body, status=402)

    def _accept_payment(self, call: RunnerCall, payment: Payment, *, is_first: bool) -> None:
        self._ledger.accept(payment, is_first=is_first)
        call.manifest_id, call.paid_wei = payment.challenge.manifest_id, payment.wei

    @property
    def _base_url(self) -> str:
        return self.node.spec.service_uri.rstrip("/")

    def _control_url(self, runner: LiveRunner, session_id: str) -> str:
        return f"{self._base_url}/apps/{runner.url_name}/session/{session_id}"
