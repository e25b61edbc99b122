"""Read what requests carry: bodies within bounds of size and time, and bearer tokens."""

from __future__ import annotations

import asyncio
import hmac

from aiohttp import web
from pydantic import SecretStr

from jobtester.http import BodyTooLargeError, read_bounded

_BODY_TIMEOUT_S = 30.0
# What aiohttp raises when the peer breaks off or sends chunks that are none.
PEER_ERRORS = (web.RequestPayloadError, ConnectionError)


class BodyReadError(Exception):
    """A body that was not read to its end; `status` is the HTTP status to answer with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_limited(request: web.Request, max_bytes: int, timeout_s: float = _BODY_TIMEOUT_S) -> bytes:
    """Return a body of at most `max_bytes` bytes, exactly as it was sent, within `timeout_s` seconds.

    Raises BodyReadError.
    """
    # Content-Length spares reading a body that says it is too large; `read_bounded` counts those that lie.
    too_large = BodyReadError(413, f"larger than {max_bytes} bytes")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    try:
        async with asyncio.timeout(timeout_s):
            return await read_bounded(request.content, max_bytes)
    except BodyTooLargeError as error:
        raise too_large from error
    except TimeoutError as error:
        raise BodyReadError(408, f"the body did not arrive within {timeout_s:g} s") from error
    except PEER_ERRORS as error:
        raise BodyReadError(400, "the body broke off") from error


def has_bearer_token(request: web.Request, token: SecretStr) -> bool:
    """Return True if the request's Authorization header carries `token` as a bearer."""
    bearer = parse_bearer(request.headers.get("Authorization", ""))
    return bearer is not None and is_token(bearer, token)


def parse_bearer(header: str) -> str | None:
    """Return the token of an Authorization header, its scheme in any case; None for another scheme or nothing."""
    scheme, *rest = header.split(maxsplit=1) or [""]
    return rest[0].strip() if rest and scheme.lower() == "bearer" else None


def is_token(text: str, token: SecretStr) -> bool:
    """Return True if the text is the token; the comparison takes constant time."""
    # aiohttp decodes headers with surrogateescape, and bytes that are no UTF-8 must not raise here.
    return hmac.compare_digest(text.encode("utf-8", "surrogateescape"), token.get_secret_value().encode())
