"""Decide who may use which route: only readers, unless the route is on the list of open ones."""

from __future__ import annotations

import binascii
import ipaddress
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from types import MappingProxyType

from aiohttp import web
from pydantic import SecretStr

from jobtester.settings.operator_sections import ServerSettings
from jobtester.web.context import CONTEXT
from jobtester.web.requests import is_token, parse_bearer

_CHALLENGE = 'Basic realm="livepeer-job-tester", charset="UTF-8"'
_FORWARDED_FOR = "X-Forwarded-For"


class Access(Enum):
    """What a route asks of a caller."""

    OPEN = "open"  # to everybody
    METRICS = "metrics"  # server.metrics_token or a reader, if that token is set
    SIGNED = "signed"  # the route checks a secret of its own
    READER = "reader"  # server.read_token or a trusted proxy's user, if one of them is set


# Gateways cannot send a token when they ask for orchestrators, and neither can Docker or Kubernetes when they check the
# health. Every route that is not listed here is for readers, so that a new one is never open by mistake.
ROUTES: Mapping[tuple[str, str], Access] = MappingProxyType(
    {
        ("GET", "/healthz"): Access.OPEN,
        ("GET", "/readyz"): Access.OPEN,
        ("GET", "/metrics"): Access.METRICS,
        ("GET", "/orchestrators"): Access.OPEN,
        ("GET", "/orchestrators/{gateway}"): Access.OPEN,
        ("GET", "/static"): Access.OPEN,
        ("POST", "/webhooks/gateway-events"): Access.SIGNED,
        ("POST", "/webhooks/test-results"): Access.SIGNED,
        ("POST", "/api/post_stats"): Access.SIGNED,
        ("POST", "/api/ticks"): Access.SIGNED,
    }
)


def find_access(method: str, path: str) -> Access:
    """Return what a route asks of a caller; `path` as the route was declared."""
    return ROUTES.get(("GET" if method == "HEAD" else method, path), Access.READER)


@web.middleware
async def check_access(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse callers that may not use the route, with 401. Unknown paths are refused alike, to reveal nothing."""
    resource = request.match_info.route.resource
    access = find_access(request.method, resource.canonical if resource is not None else "")
    server = request.app[CONTEXT].settings().server
    if access is Access.METRICS:
        is_admitted = server.metrics_token is None or has_token(request, server.metrics_token) or is_reader(request)
    else:
        is_admitted = access is not Access.READER or not is_restricted(server) or is_reader(request)
    if not is_admitted:
        raise web.HTTPUnauthorized(
            text="a token is needed: as a bearer, or as the password of any user name\n",
            headers={"WWW-Authenticate": _CHALLENGE},
        )
    return await handler(request)


def is_restricted(server: ServerSettings) -> bool:
    """Return True if only readers may see pages and API."""
    return server.read_token is not None or bool(server.proxy_user_header)


def is_reader(request: web.Request) -> bool:
    """Return True if the caller has the read token, or comes through a trusted proxy that names its user."""
    server = request.app[CONTEXT].settings().server
    if server.read_token is not None and has_token(request, server.read_token):
        return True
    header = server.proxy_user_header
    return bool(header and request.headers.get(header, "").strip() and _is_trusted(request.remote, server))


def has_token(request: web.Request, token: SecretStr) -> bool:
    """Return True if the request carries the token as a bearer, or as the password of basic authentication."""
    header = request.headers.get("Authorization", "")
    bearer = parse_bearer(header)
    text = bearer if bearer is not None else _parse_password(header)
    return text is not None and is_token(text, token)


def find_client(request: web.Request) -> str:
    """Return the address of the caller: the peer's, or the one that a trusted proxy forwards for."""
    server = request.app[CONTEXT].settings().server
    address = request.remote or "unknown"
    # From the right, because each proxy appends the peer it saw: what stands left of an address that is not a proxy's
    # was written by the caller.
    forwarded = ",".join(request.headers.getall(_FORWARDED_FOR, [])).split(",")
    for hop in reversed([text.strip() for text in forwarded]):
        if not hop or not _is_trusted(address, server):
            break
        if _parse_address(hop) is None:
            break
        address = hop
    return address


def _is_trusted(address: str | None, server: ServerSettings) -> bool:
    peer = _parse_address(address or "")
    return peer is not None and any(peer in ipaddress.ip_network(network) for network in server.trusted_proxy)


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket that serves both families shows an IPv4 peer as ::ffff:192.0.2.1.
    return getattr(address, "ipv4_mapped", None) or address


def _parse_password(header: str) -> str | None:
    """Return the password of basic authentication; None for another scheme or nonsense."""
    scheme, *rest = header.split(maxsplit=1) or [""]
    if not rest or scheme.lower() != "basic":
        return None
    try:
        text = b64decode(rest[0].strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    return text.partition(":")[2]
