"""Pay for one job of a live runner: answer its orchestrator's 402, and go on paying while the job lasts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import orjson
import structlog

from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import is_same_origin, is_usable_url
from jobtester.domain.runner_prices import PREPAID_S
from jobtester.domain.untrusted_text import clean_name
from jobtester.live_runner.client import LiveRunnerClient
from jobtester.live_runner.signer import (
    PAYMENT_HEADER,
    Challenge,
    RemoteSigner,
    SignedPayment,
    SignerError,
    is_known_unit,
)

log = structlog.get_logger()

Send = Callable[[Mapping[str, str]], Awaitable[Exchange]]
OnChallenge = Callable[[Challenge], Awaitable[None]]
_PAYMENT_INTERVAL_S = 3.0
_LATEST_S = 5.0  # an orchestrator may expect a payment every five seconds
_PAYMENT_TIMEOUT_S = 5.0
_MAX_PAYMENT_ANSWER = 256 * 1024
_MAX_PARAMS_CHARS = 64 * 1024
_MAX_TEXT_CHARS = 1_000
_PAYER_HEADER = "Livepeer-Payer-Address"


class PaymentRefusedError(Exception):
    """The tester does not pay what is asked; the message says why. `code` is the job's reason code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class JobPayment:
    """Pays for one job, inside `async with`: at its end nothing more is paid.

    `problem_code` and `problem` say why the tester did not pay, or not go on paying; both are empty while all is well.
    Every request is paid for once at most, and no job with more than the plan has estimated for it. What the payments
    are worth is opaque to the tester, so `paid_wei` is what they should be by the listed price. `challenge_s` is how
    long the orchestrator took to ask for payment, in seconds.
    """

    def __init__(
        self,
        job: Job,
        client: LiveRunnerClient,
        signer: RemoteSigner | None,
        *,
        interval_s: float = _PAYMENT_INTERVAL_S,
        latest_s: float = _LATEST_S,
    ) -> None:
        """Prepare to pay; without a signer, and for an app without a price, nothing is ever paid.

        What is paid by time is paid every `interval_s` seconds. A payment that comes later than `latest_s` after the
        one before is a problem of the signer.
        """
        self.problem_code = self.problem = ""
        self.challenge_s = 0.0
        self._job, self.client = job, client
        self._signer = signer if job.capability.is_priced else None
        self._interval_s, self._latest_s = interval_s, latest_s
        self._meter: asyncio.Task[None] | None = None
        self._has_paid = False
        self._paid_from = self._paid_until = 0.0
        self._idle_since = 0.0  # when the latest payment was over

    async def __aenter__(self) -> JobPayment:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._meter is not None:
            if not self._meter.done():
                self._note_lateness()
            self._meter.cancel()
            await asyncio.wait({self._meter})

    @property
    def paid_wei(self) -> int:
        """Return what has been paid, by the listed price; 0 if nothing was."""
        return self._price_until(self._paid_until) if self._has_paid else 0

    async def send(self, send: Send, on_challenge: OnChallenge | None = None) -> Exchange:
        """Send a request, and once more with a payment if it is answered with 402; return the exchange that counts.

        `on_challenge` is awaited before the first payment of a request is made. Never raises for what the network does.
        """
        signer = self._signer
        if signer is None:
            return await send({})
        try:
            headers = {_PAYER_HEADER: await signer.payer()}
        except SignerError as error:
            self._set_problem(error)
            return _unsent(str(error))
        exchange = await send(headers)
        is_renewed = False
        while exchange.ending is Ending.ANSWERED and exchange.status == 402:
            try:
                challenge = parse_challenge(exchange.body, self._job.target.service_uri)
                if on_challenge is not None:
                    await on_challenge(challenge)
                signed = await self._sign(signer, challenge)
            except PaymentRefusedError as error:
                self.problem_code, self.problem = error.code, str(error)
                return exchange
            except SignerError as error:
                if error.wants_new_parameters and not is_renewed:  # the orchestrator gives them to an unpaid request
                    self.challenge_s += exchange.round_trip_s
                    is_renewed, exchange = True, await send(headers)
                    continue
                self._set_problem(error)
                return exchange
            # An orchestrator could work on the job before it asks for payment, so what it takes for that counts too.
            self.challenge_s += exchange.round_trip_s
            self._has_paid = True
            self._paid_from = self._paid_until = self._idle_since = time.monotonic()
            if not self._is_fixed:
                self._meter = asyncio.create_task(self._pay_on(signer, challenge, signed.state), name="payment")
            return (await send(signed.headers)).begun_earlier(self.challenge_s)
        return exchange.begun_earlier(self.challenge_s)

    def _price_until(self, moment: float) -> int:
        """Return what the job costs in wei, by the listed price, if it is paid until then."""
        price = self._job.capability.price
        assert price is not None
        if self._is_fixed:
            return price.wei_per_unit
        return math.ceil(price.wei_per_unit * (moment - self._paid_from + PREPAID_S))

    @property
    def _is_fixed(self) -> bool:
        runner = self._job.capability.runner
        return runner is not None and runner.unit == "fixed"

    async def _sign(self, signer: RemoteSigner, challenge: Challenge, state: Any = None) -> SignedPayment:
        runner, price = self._job.capability.runner, self._job.capability.price
        assert runner is not None
        assert price is not None
        if not is_known_unit(runner.unit):
            raise PaymentRefusedError("price_refused", f"the price is for {runner.unit[:40]!r}, an unknown unit")
        # The price itself is inside the opaque parameters: the signer refuses more than what is listed.
        return await signer.sign(
            challenge, app=self._job.pipeline, price_wei=price.wei_per_unit, unit=runner.unit, state=state
        )

    async def _pay_on(self, signer: RemoteSigner, challenge: Challenge, state: Any) -> None:
        """Pay every few seconds until the job ends; the orchestrator ends what is not paid for."""
        while True:
            await asyncio.sleep(self._interval_s)
            paid_until, most_wei = time.monotonic(), self._job.price_wei
            if most_wei is not None and self._price_until(paid_until) > most_wei:
                # The plan has counted the longest time that the job may take: what is beyond it, such as a file that
                # comes slowly, is not worth more than the limit on prices.
                self.problem_code = "price_refused"
                self.problem = "The job took longer than the plan counted for its price, so the tester stopped paying."
                return
            try:
                signed = await self._sign(signer, challenge, state)
            except SignerError as error:
                if error.is_nothing_due:
                    continue
                self._set_problem(error)
                return
            self._note_lateness()
            state = signed.state
            self._paid_until = paid_until  # it is spent once it leaves, whatever the answer is
            try:
                status, answer = await self.client.post(
                    challenge.payment_url,
                    headers=signed.headers,
                    timeout_s=_PAYMENT_TIMEOUT_S,
                    max_bytes=_MAX_PAYMENT_ANSWER,
                )
            except (OSError, TimeoutError, ValueError, aiohttp.ClientError):
                continue  # if its orchestrator is gone, the job itself shows that
            finally:
                self._idle_since = time.monotonic()
            if status == 404:  # the session has ended, which the job itself shows
                return
            if not 200 <= status < 300:
                text = answer[:200].decode("utf-8", "replace").strip()
                self.problem_code = "signer_fault"
                self.problem = f"The orchestrator does not take a further payment: {status} {text}"
                return

    def _note_lateness(self) -> None:
        """Record that a payment is late, for which the orchestrator may have ended the job."""
        late_s = time.monotonic() - self._idle_since
        if late_s > self._latest_s and not self.problem_code:
            self.problem_code = "signer_fault"
            self.problem = (
                f"A payment came {late_s:.1f} s after the one before: the signer, or the tester, is too slow."
            )

    def _set_problem(self, error: SignerError) -> None:
        self.problem_code = "price_refused" if error.refuses_price else "signer_fault"
        self.problem = str(error)
        log.warning("payment_not_made", job=self._job.id, reason=self.problem_code, problem=self.problem)


def is_paid(headers: Mapping[str, str]) -> bool:
    """Return True if a request with these headers brings a payment."""
    return PAYMENT_HEADER in headers


def parse_challenge(body: bytes, service_uri: str) -> Challenge:
    """Return what a 402 asks for. Raises PaymentRefusedError for what is not paid.

    Nothing is sent to another origin than the service URI, and nobody else is paid.
    """
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise PaymentRefusedError("payment_required", "The orchestrator wants payment and does not say how (402).")
    params, manifest_id = values.get("payment_params"), values.get("manifest_id")
    if not isinstance(params, str) or not 0 < len(params) <= _MAX_PARAMS_CHARS:
        raise PaymentRefusedError("payment_required", "The orchestrator wants payment without parameters (402).")
    payment_url, orchestrator = _clean_url(values.get("payment_url")), _clean_url(values.get("orchestrator"))
    for url in (payment_url, orchestrator):
        if url and not is_same_origin(url, service_uri):
            raise PaymentRefusedError("refuted", f"payment: {url[:200]} is not at {service_uri}; nothing was paid")
    if not is_usable_url(payment_url):
        raise PaymentRefusedError("payment_required", "The orchestrator does not say where payments go (402).")
    if not isinstance(manifest_id, str) or not 0 < len(manifest_id) <= _MAX_TEXT_CHARS:
        raise PaymentRefusedError("payment_required", "The orchestrator wants payment without a manifest id (402).")
    return Challenge(params, manifest_id, payment_url, orchestrator)


def _clean_url(value: object) -> str:
    url = clean_name(value)
    return url if len(url) <= _MAX_TEXT_CHARS else url[:_MAX_TEXT_CHARS]


def _unsent(detail: str) -> Exchange:
    """Return the exchange of a request that was not sent, because it could not have been paid."""
    now = time.monotonic()
    return Exchange(Ending.REFUSED, time.time(), now, now, detail=detail)
