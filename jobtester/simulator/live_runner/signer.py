"""A simulated remote signer: it pays an orchestrator's challenges for a tester that has no key."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from jobtester.simulator.live_runner.payment import Challenge, PaymentLedger, create_opaque_value
from jobtester.simulator.server import start_listening

PAYER = "0x9a9e000000000000000000000000000000000001"
_FIRST_PAYMENT_INTERVALS = 2
# A payment for less of an interval than this is not worth a ticket.
_SHORTEST_SHARE = 0.1
_TYPES = ("live", "lv2v", "fixed")


class _SignerError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class _SignedState:
    """What the signer remembers by the opaque state that it hands out: whom it paid last, and when."""

    manifest_id: str
    paid_at: float


class RemoteSigner:
    """The signer's HTTP port.

    `fail_next(status, count)` makes its next payments fail. It refuses prices above `max_price`, unless that is 0.
    """

    def __init__(self, ledger: PaymentLedger, *, host: str = "127.0.0.1", port: int = 0, max_price: int = 0) -> None:
        self.max_price = max_price
        self.requests = 0
        self._ledger, self._host, self._port = ledger, host, port
        self._states: dict[str, _SignedState] = {}
        self._failures: list[int] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Base URL of the signer."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        app = web.Application()
        app.router.add_post("/sign-orchestrator-info", self._handle_sign_info)
        app.router.add_post("/generate-live-payment", self._handle_payment)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._port = await start_listening(self._runner, self._host, self._port)

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def fail_next(self, status: int, count: int = 1) -> None:
        """Answer the next `count` requests for a payment with this status."""
        self._failures += [status] * count

    async def _handle_sign_info(self, _: web.Request) -> web.Response:
        return web.json_response({"address": PAYER, "signature": f"0x{'5e' * 65}"})

    async def _handle_payment(self, request: web.Request) -> web.Response:
        self.requests += 1
        try:
            return web.json_response(self._sign(await request.read()))
        except _SignerError as error:
            return web.json_response({"error": {"message": str(error)}}, status=error.status)

    def _sign(self, body: bytes) -> dict[str, Any]:
        if self._failures:
            raise _SignerError(self._failures.pop(0), "simulated failure")
        values = _parse_body(body)
        challenge = self._find_challenge(values)
        self._check_price(challenge, values.get("maxPrice"))
        now = time.monotonic()
        covered_s = 0.0 if challenge.is_fixed else self._measure_time_to_pay(challenge, values.get("state"), now)
        payment = self._ledger.sign_payment(challenge, covered_s)
        token = create_opaque_value()
        self._states[token] = _SignedState(challenge.manifest_id, now)
        return {
            "payment": payment.payment,
            "segCreds": payment.seg_creds,
            "state": {"state": token, "sig": create_opaque_value()},
        }

    def _find_challenge(self, values: dict[str, Any]) -> Challenge:
        params = values.get("orchestrator")
        challenge = self._ledger.challenges.get(params) if isinstance(params, str) else None
        if challenge is None:
            raise _SignerError(400, "orchestrator: not payment parameters")
        if values.get("type") not in _TYPES:
            raise _SignerError(400, f"type must be one of {', '.join(_TYPES)}")
        if (values["type"] == "fixed") != challenge.is_fixed:
            raise _SignerError(400, f"type {values['type']} does not suit the unit {challenge.unit}")
        if values.get("ManifestID") != challenge.manifest_id:
            raise _SignerError(400, "ManifestID does not belong to the payment parameters")
        # The parameters of a session that is paid for already stay valid as long as it is.
        if not values.get("state") and time.monotonic() > challenge.expires_at:
            raise _SignerError(480, "payment parameters expired")
        return challenge

    def _check_price(self, challenge: Challenge, limit: Any) -> None:
        if limit is not None:
            if not isinstance(limit, dict) or not isinstance(limit.get("price"), int):
                raise _SignerError(400, "maxPrice must have a price")
            if challenge.price > limit["price"]:
                raise _SignerError(481, f"price {challenge.price} is above the limit {limit['price']}")
        if self.max_price and challenge.price > self.max_price:
            raise _SignerError(481, f"price {challenge.price} is above the signer's limit {self.max_price}")

    def _measure_time_to_pay(self, challenge: Challenge, state: Any, now: float) -> float:
        """Return the seconds to pay for: some in advance at first, then those since the last payment."""
        if state is None:
            return challenge.interval_s * _FIRST_PAYMENT_INTERVALS
        signed = self._states.get(str(state.get("state"))) if isinstance(state, dict) else None
        if signed is None or signed.manifest_id != challenge.manifest_id:
            raise _SignerError(400, "state is not of this session")
        elapsed_s = now - signed.paid_at
        if elapsed_s < challenge.interval_s * _SHORTEST_SHARE:
            raise _SignerError(482, "no tickets needed now")
        return elapsed_s


def _parse_body(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except ValueError as error:
        raise _SignerError(400, "body is not JSON") from error
    if not isinstance(values, dict):
        raise _SignerError(400, "body is not an object")
    return values
