"""Payments for runners: challenges and payments that are opaque to a client, and what each of them is worth."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jobtester.simulator.live_runner import errors
from jobtester.simulator.live_runner.errors import RequestRefusedError

_CHALLENGE_S = 60.0


def create_opaque_value() -> str:
    """Return base64 that means nothing."""
    return base64.b64encode(os.urandom(96)).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 402 response asks for. `price` is in wei per `unit`; a unit of time is paid for every `interval_s`."""

    payment_params: str
    manifest_id: str
    runner_id: str
    payer: str
    price: int
    unit: str
    interval_s: float
    expires_at: float

    @property
    def is_fixed(self) -> bool:
        """Whether it is paid for once."""
        return self.unit == "fixed"


@dataclass(frozen=True, slots=True)
class Payment:
    """One signed payment. `covered_s` is the time that it pays for, 0 at a fixed price."""

    payment: str
    seg_creds: str
    challenge: Challenge
    wei: int
    covered_s: float


class PaymentLedger:
    """Every challenge and payment of the network: what a chain and its tickets are in the real one."""

    def __init__(self) -> None:
        self.challenges: dict[str, Challenge] = {}
        self.payments: dict[str, Payment] = {}
        self._manifests: dict[str, str] = {}  # by segment credentials
        self._used_payments: set[str] = set()
        self._used_manifests: set[str] = set()

    @property
    def signed_wei(self) -> int:
        """What the signer has signed, used or not."""
        return sum(payment.wei for payment in self.payments.values())

    def issue_challenge(
        self, *, manifest_id: str, runner_id: str, payer: str, price: int, unit: str, interval_s: float
    ) -> Challenge:
        """Return a new challenge that is valid for a minute."""
        expires_at = time.monotonic() + _CHALLENGE_S
        challenge = Challenge(create_opaque_value(), manifest_id, runner_id, payer, price, unit, interval_s, expires_at)
        self.challenges[challenge.payment_params] = challenge
        return challenge

    def sign_payment(self, challenge: Challenge, covered_s: float) -> Payment:
        """Return a payment for the challenge: its price, or its price for a time."""
        wei = challenge.price if challenge.is_fixed else round(challenge.price * covered_s)
        payment = Payment(create_opaque_value(), create_opaque_value(), challenge, wei, covered_s)
        self.payments[payment.payment] = payment
        self._manifests[payment.seg_creds] = challenge.manifest_id
        return payment

    def find_payment(self, headers: Mapping[str, str], runner_id: str) -> Payment | None:
        """Return the payment that headers carry, None if they have none that this runner can use.

        RequestRefusedError if the payment and its credentials do not belong together.
        """
        payment = self.payments.get(headers.get("Livepeer-Payment", ""))
        if payment is None:
            return None
        seg_creds = headers.get("Livepeer-Segment", "")
        if not seg_creds:
            raise RequestRefusedError(403, errors.MISSING_TOKEN)
        if self._manifests.get(seg_creds) != payment.challenge.manifest_id:
            raise RequestRefusedError(403, errors.MISMATCHED_TOKEN)
        payer = headers.get("Livepeer-Payer-Address", "").lower()
        if payment.challenge.runner_id != runner_id or payment.challenge.payer.lower() != payer:
            return None
        return payment

    def accept(self, payment: Payment, *, is_first: bool) -> None:
        """Use a payment up. RequestRefusedError if it, or as the first one its manifest, was used before."""
        manifest_id = payment.challenge.manifest_id
        if payment.payment in self._used_payments or (is_first and manifest_id in self._used_manifests):
            raise RequestRefusedError(409, errors.SESSION_EXISTS)
        self._used_payments.add(payment.payment)
        self._used_manifests.add(manifest_id)


class PaymentMeter:
    """Ends a session or request whose payments stop.

    It tolerates one interval without payment. `lapsed` is set at the end, after `on_lapse` was called.
    """

    def __init__(self, payment: Payment, on_lapse: Callable[[], None] = lambda: None) -> None:
        self.is_fixed = payment.challenge.is_fixed
        self.paid_wei = 0
        self.lapsed = asyncio.Event()
        self._interval_s = payment.challenge.interval_s
        self._paid_until = time.monotonic()
        self._on_lapse = on_lapse
        self._timer: asyncio.TimerHandle | None = None
        self.add(payment)

    def add(self, payment: Payment) -> None:
        """Count a payment, and wait for the next one from now on if the price is by time."""
        self.paid_wei += payment.wei
        if self.is_fixed:
            return
        self.stop()
        now = time.monotonic()
        self._paid_until = max(now, self._paid_until) + payment.covered_s
        delay_s = self._paid_until - now + self._interval_s
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._lapse)

    def stop(self) -> None:
        """Expect no more payments."""
        if self._timer is not None:
            self._timer.cancel()

    def _lapse(self) -> None:
        self._on_lapse()
        self.lapsed.set()
