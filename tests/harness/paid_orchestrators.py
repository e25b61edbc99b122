"""An orchestrator whose app costs money, and the signer that pays it, both as slow or as unwilling as a test needs."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.harness.live_runners import FakeOrchestrator, fake_orchestrators, own_error
from tests.harness.ports import free_port

PRICE = 1000


@dataclass(slots=True)
class SlowSigner:
    """Makes payments: the first at once, and each later one after `later_s` seconds and with `later_status`."""

    later_s: float = 0.0
    later_status: int = 200
    signed: int = 0
    url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SlowSigner]:
        """Listen without TLS."""
        app, port = web.Application(), free_port()
        app.router.add_post("/sign-orchestrator-info", self._tell_payer)
        app.router.add_post("/generate-live-payment", self._sign)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _tell_payer(self, _: web.Request) -> web.Response:
        return web.json_response({"address": f"0x{'9a' * 20}", "signature": "0x5e"})

    async def _sign(self, request: web.Request) -> web.Response:
        if (await request.json()).get("state"):
            await asyncio.sleep(self.later_s)
            if self.later_status != 200:
                return web.json_response({}, status=self.later_status)
        self.signed += 1
        payment = base64.b64encode(str(self.signed).encode()).decode()
        return web.json_response({"payment": payment, "segCreds": "eA==", "state": {"number": self.signed}})


@dataclass(slots=True)
class PaidOrchestrator(FakeOrchestrator):
    """Serves one app for money. It takes `challenge_s` seconds to ask for that, and `app_s` for the app.

    The app names a file, which is there only while the session is paid: after `lapse_s` seconds it has ended. Payments
    that come later are taken, and answered after `payment_s` seconds.
    """

    mode: str = "persistent"
    unit: str = "seconds"
    challenge_s: float = 0.0
    app_s: float = 0.0
    lapse_s: float = 60.0
    payment_s: float = 0.0
    paid: list[str] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=lambda: {"text": "hello"})
    _reserved_at: float = 0.0

    def __post_init__(self) -> None:
        """List the app with its price."""
        self.apps = {"app": self._handle}
        path = "app" if self.mode == "single-shot" else "session"
        price = {"price": PRICE, "currency": "wei", "unit": self.unit}
        self.changes = {"app": {"mode": self.mode, "url": f"{{uri}}/apps/app/{path}", "price_info": price}}

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        now, path = asyncio.get_running_loop().time(), request.match_info["path"]
        session = f"{self.uri}/apps/app/session/session_1"
        if path.endswith("/stop"):
            return web.Response(status=204)
        if path.endswith("/payment"):
            self.paid.append(request.headers["Livepeer-Payment"])
            await asyncio.sleep(self.payment_s)
            return web.Response(body=b"opaque")
        if "/session_1/" in path:
            if "/files/" not in path:
                await asyncio.sleep(self.app_s)
            if asyncio.get_running_loop().time() - self._reserved_at > self.lapse_s:
                return own_error(404, "runner session not found")
            return web.json_response({**self.answer, "images": [{"url": f"{session}/app/files/a.png"}]})
        if "Livepeer-Payment" not in request.headers:
            await asyncio.sleep(self.challenge_s)
            return web.json_response(
                {"payment_params": "eA==", "manifest_id": "session_1", "payment_url": f"{session}/payment",
                 "orchestrator": self.uri}, status=402,
            )  # fmt: skip
        self.paid.append(request.headers["Livepeer-Payment"])
        self._reserved_at = now
        if self.mode == "single-shot":
            await asyncio.sleep(self.app_s)
            return web.json_response(self.answer)
        return web.json_response({"session_id": "session_1", "app_url": f"{session}/app", "control_url": session})


@asynccontextmanager
async def paid_network(node: PaidOrchestrator, signer: SlowSigner) -> AsyncIterator[dict[str, Any]]:
    """Run both beside an orchestrator that shows that the tester's line works; yield the tables of a config.toml."""
    async with signer.running(), fake_orchestrators(node, FakeOrchestrator()) as known:
        payment = {"signer_url": signer.url}
        yield {
            "orchestrators": known,
            "live_runner": {"enabled": True, "networks": ["127.0.0.0/8"], "payment": payment},
        }
