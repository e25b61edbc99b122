"""Bearer tokens: read from a request whatever the scheme's case and the blanks, and compared in constant time."""

from __future__ import annotations

import hmac

from aiohttp import web
from pydantic import SecretStr


def has_token(request: web.Request, token: SecretStr) -> bool:
    """Return True if the request's Authorization header carries `token` as a bearer."""
    given = bearer_of(request.headers.get("Authorization", ""))
    return given is not None and is_token(given, token)


def bearer_of(header: str) -> str | None:
    """Return the token of an Authorization header, its scheme in any case; None for another scheme or nothing."""
    scheme, *rest = header.split(maxsplit=1) or [""]
    return rest[0].strip() if rest and scheme.lower() == "bearer" else None


def is_token(given: str, token: SecretStr) -> bool:
    """Return True if both are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.get_secret_value().encode())
