"""Ask the remote signer for payments, whose content is opaque to the tester."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from jobtester.errors import JobTesterError
from jobtester.gateway.job_sender import USER_AGENT
from jobtester.http import BodyTooLargeError, Proxies, read_bounded

PAYMENT_HEADER = "Livepeer-Payment"
_TIMEOUT_S = 10.0
_MAX_BYTES = 256 * 1024
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_OPAQUE = re.compile(r"[A-Za-z0-9+/=_-]{1,65536}")  # base64 of either alphabet; it goes into a header
_TYPES = {"fixed": "fixed", "seconds": "live", "720p-pixel-seconds": "lv2v"}


class SignerError(JobTesterError):
    """The signer makes no payment."""

    def __init__(self, detail: str = "", status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status

    @property
    def wants_new_parameters(self) -> bool:
        """Whether it takes only newer payment parameters than it was given."""
        return self.status == 480

    @property
    def refuses_price(self) -> bool:
        """Whether the price is above what it was told to pay, or above its own limit."""
        return self.status == 481

    @property
    def is_nothing_due(self) -> bool:
        """Whether there is nothing to pay yet."""
        return self.status == 482


@dataclass(frozen=True, slots=True)
class Challenge:
    """What an orchestrator's 402 asks for: parameters for the signer, and where later payments go."""

    payment_params: str
    manifest_id: str
    payment_url: str
    orchestrator: str


@dataclass(frozen=True, slots=True)
class SignedPayment:
    """One payment as the headers of a request, and what the signer wants to have back for the next one."""

    headers: dict[str, str]
    state: Any


@dataclass(slots=True)
class RemoteSigner:
    """Talks to the signer that the configuration names; its address is the user's, so any address will do."""

    url: str
    _payer: str = ""
    _session: aiohttp.ClientSession | None = None
    _proxies: Proxies = field(default_factory=Proxies.from_environment)

    async def open(self) -> None:
        """Open the connection pool; call close() when done."""
        self._session = aiohttp.ClientSession(
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None, ceil_threshold=86_400),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    @property
    def shown_url(self) -> str:
        """The signer's scheme and host; the rest of its address may be a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    async def payer(self) -> str:
        """Return the address that pays; the signer is asked once. Raises SignerError."""
        if not self._payer:
            address = (await self._post("/sign-orchestrator-info", {})).get("address")
            if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
                raise SignerError(f"the signer at {self.shown_url} does not tell the address that pays")
            self._payer = address
        return self._payer

    async def sign(
        self, challenge: Challenge, *, app: str, price_wei: int, unit: str, state: Any = None
    ) -> SignedPayment:
        """Return a payment at `price_wei` for each unit at most. Raises SignerError."""
        body = {
            "orchestrator": challenge.payment_params,
            "type": _TYPES[unit],
            "ManifestID": challenge.manifest_id,
            "app": app,
            "maxPrice": {"price": price_wei, "currency": "wei", "unit": unit},
        }
        if state is not None:
            body["state"] = state
        payer = await self.payer()
        answer = await self._post("/generate-live-payment", body)
        payment, credentials = (_read_opaque(answer.get(name)) for name in ("payment", "segCreds"))
        if not payment or not credentials:
            raise SignerError(f"the signer at {self.shown_url} answers without a payment")
        headers = {PAYMENT_HEADER: payment, "Livepeer-Segment": credentials, "Livepeer-Payer-Address": payer}
        return SignedPayment(headers, answer.get("state"))

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self._session is not None, "open() comes first"
        url = self.url.rstrip("/") + path
        where = f"the signer at {self.shown_url}"
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                request = self._session.post(
                    url,
                    data=orjson.dumps(body),
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                    **self._proxies.request_arguments(url),
                )
                async with request as response:
                    status, content = response.status, await read_bounded(response.content, _MAX_BYTES)
        except TimeoutError as error:
            raise SignerError(f"{where} gives no answer within {_TIMEOUT_S:g} s") from error
        except BodyTooLargeError as error:
            raise SignerError(f"{where}: {error}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SignerError(f"{where} cannot be reached: {str(error) or type(error).__name__}") from error
        if status != 200:
            text = content[:200].decode("utf-8", "replace").strip()
            raise SignerError(f"{where} answers {status}: {text}", status)
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise SignerError(f"{where} does not answer with JSON") from error
        if not isinstance(answer, dict):
            raise SignerError(f"{where} does not answer with a JSON object")
        return answer


def _read_opaque(value: object) -> str:
    return value if isinstance(value, str) and _OPAQUE.fullmatch(value) else ""


def is_known_unit(unit: str) -> bool:
    """Return True if a payment can be asked for in this unit."""
    return unit in _TYPES
