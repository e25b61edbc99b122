"""Speak HTTP safely: bounded bodies, signatures, proxies, and plain words for what goes wrong."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import ipaddress
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import aiohttp
from aiohttp.http_exceptions import BadHttpMessage
from yarl import URL

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": 80, "https": 443}


class BodyTooLargeError(ValueError):
    """A body has more bytes than its reader accepts."""


async def read_bounded(content: aiohttp.StreamReader, max_bytes: int) -> bytes:
    """Read the body of a request or response to its end. Raises BodyTooLargeError as soon as it exceeds `max_bytes`.

    Content-Length is the sender's claim and may be missing, so the bytes themselves are counted.
    """
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLargeError(f"the answer is larger than {max_bytes} bytes")
    return bytes(body)


def sign_body(secret: str, body: bytes) -> str:
    """Return the signature that the Leaderboard expects: bare lower-case hex of HMAC-SHA256 over the exact bytes."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def is_signature_valid(secret: str, body: bytes, signature: str) -> bool:
    """Return True if a signature from the network is that of the body; the comparison takes constant time."""
    # "replace": the header may hold anything, lone surrogates included, and must not raise.
    return hmac.compare_digest(signature.encode("utf-8", "replace"), sign_body(secret, body).encode())


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name, read once and not for each request.

    aiohttp's own `trust_env` reads them, and a .netrc, before every request and in a thread. NO_PROXY is read as Go
    reads it: host names with their subdomains, `.domain` for subdomains alone, IP addresses and CIDR networks, each but
    a network with an optional port, in any case; `*` stands for everything.
    """

    addresses: dict[str, str]

    @classmethod
    def from_environment(cls) -> Proxies:
        """Return the proxies of the environment, whose variables may be in upper or lower case."""
        return cls(getproxies_environment())

    def request_arguments(self, url: str) -> dict[str, Any]:
        """Return the arguments with which aiohttp sends a request to `url` through its proxy; none if it has none.

        Credentials in a proxy's address reach the proxy alone.
        """
        proxy = self.proxy_for(url)
        return {} if proxy is None else {"proxy": proxy}

    def proxy_for(self, url: str) -> URL | None:
        """Return the proxy through which `url` is reached; None if it is reached directly."""
        if not self.addresses:
            return None
        parts = urlsplit(url)
        proxy = self.addresses.get(parts.scheme)
        port = parts.port or _PORTS.get(parts.scheme)
        if not proxy or _is_bypassed(parts.hostname or "", port, self.addresses.get("no", "")):
            return None
        return URL(proxy if "://" in proxy else f"http://{proxy}")


def mask_credentials(proxy: URL) -> str:
    """Return a proxy's address as people may see it: without its user and password."""
    has_credentials = proxy.user is not None or proxy.password is not None
    return str(proxy.with_user(None) if has_credentials else proxy).rstrip("/")


@lru_cache(1024)
def _is_bypassed(host: str, port: int | None, exceptions: str) -> bool:
    host = host.lower().rstrip(".")
    address = _parse_address(host)
    return any(_matches(entry.strip().lower(), host, address, port) for entry in exceptions.split(","))


def _matches(entry: str, host: str, address: _Address | None, port: int | None) -> bool:
    if not entry:
        return False
    if entry == "*":
        return True
    if "/" in entry:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address is not None and address in network
    name, entry_port = _split_port(entry)
    if entry_port is not None and entry_port != port:
        return False
    entry_address = _parse_address(name)
    if entry_address is not None or address is not None:
        return entry_address == address
    name = name.removeprefix("*").rstrip(".")
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}")


def _split_port(entry: str) -> tuple[str, int | None]:
    # `name`, `name:port`, `address`, `[address]` or `[address]:port`; a bare IPv6 address has no port.
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        digits = rest.removeprefix(":")
    elif entry.count(":") == 1:
        name, _, digits = entry.partition(":")
    else:
        name, digits = entry, ""
    return name, int(digits) if digits.isascii() and digits.isdecimal() else None


def _parse_address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:  # ::ffff:192.0.2.1
        return address.ipv4_mapped
    return address


# OpenSSL's X509_V_ERR_… codes.
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED, _SELF_SIGNED_CHAIN = 9, 10, 18, 19
_NO_ISSUER = frozenset({2, 20, 21, 27})
_WRONG_NAME = frozenset({62, 63, 64})
_TLS_PORT_PHRASES = (
    "http request to an https server",
    "plain http request was sent to https",
    "speaking plain http to",
)
_NO_TLS_REASONS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)
# The first bytes of a TLS record, as aiohttp quotes them in its message or passes them on.
_TLS_RECORDS = ("\\x15\\x03", "\\x16\\x03", "\x15\x03", "\x16\x03")
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH})


def explain_connection_error(error: BaseException, url: str, proxy: URL | None = None) -> str:
    """Return why a request to `url` got no answer, and what to do; `proxy` is the one that it went through, if any."""
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return _explain_proxy_error(error, proxy)
    certificate = _find_certificate_error(error)
    if certificate is not None:
        return _explain_certificate_error(certificate, urlsplit(url).hostname or url)
    if isinstance(inner := _unwrap(error), ssl.SSLError):
        return _explain_tls_error(inner, url)
    if proxy is not None and isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        shown = mask_credentials(proxy)
        return f"the proxy {shown} closed the connection without an answer; check the proxy, or set NO_PROXY"
    return _explain_network_error(error, url)


def is_plain_http_refusal(status: int, body: bytes) -> bool:
    """Return True if an answer is a TLS port's refusal of plain HTTP, as Go, nginx and Apache write it."""
    text = body[:2000].decode("latin-1").lower()
    return status == 400 and any(phrase in text for phrase in _TLS_PORT_PHRASES)


def explain_https_required(url: str) -> str:
    """Return what to do about plain HTTP that was sent to a port which speaks TLS."""
    return f"the port speaks TLS and the address says http; use https://{url.partition('://')[2]}"


def _explain_proxy_error(
    error: aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError, proxy: URL | None
) -> str:
    name = mask_credentials(proxy) if proxy is not None else "from the environment"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return (
            f"the proxy {name} refuses to connect: {error.status} {error.message}".rstrip()
            + "; check its rules and HTTP_PROXY/HTTPS_PROXY, or name the host in NO_PROXY"
        )
    return (
        f"the proxy {name} that the environment names cannot be reached: {_error_text(error.os_error)}; "
        "check HTTP_PROXY/HTTPS_PROXY, or name the host in NO_PROXY"
    )


def _find_certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    return error if isinstance(error, ssl.SSLCertVerificationError) else None


def _explain_certificate_error(error: ssl.SSLCertVerificationError, host: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return f"the certificate of {host} has expired; renew it on the server"
    if code == _NOT_YET_VALID:
        return f"the certificate of {host} is not valid yet; check the clocks of both machines"
    if code in (_SELF_SIGNED, _SELF_SIGNED_CHAIN):
        return (
            f"the certificate of {host} is self-signed, so nobody vouches for it; install one of a known authority, "
            "or name yours in SSL_CERT_FILE"
        )
    if code in _WRONG_NAME:
        return f"the certificate is not made out to {host}; use the name it is made out to, or renew it"
    if code in _NO_ISSUER:
        return (
            f"the certificate of {host} comes from an authority that is not known here, or its chain is incomplete; "
            "send the whole chain, or name the authority in SSL_CERT_FILE"
        )
    return f"the certificate of {host} cannot be trusted: {error.verify_message}"


def _unwrap(error: BaseException) -> BaseException:
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error


def _explain_tls_error(error: ssl.SSLError, url: str) -> str:
    reason = (getattr(error, "reason", "") or "").upper()
    if reason in _NO_TLS_REASONS:
        return f"the port does not speak TLS and the address says https; use http://{url.partition('://')[2]}"
    return f"no TLS connection: {reason.replace('_', ' ').lower() or error}; check that the address is right"


def _explain_network_error(error: BaseException, url: str) -> str:
    host = urlsplit(url).hostname or url
    inner = _unwrap(error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {host} cannot be resolved: {_error_text(inner)}; check the spelling and the name server"
    if isinstance(error, aiohttp.ClientResponseError | BadHttpMessage):
        text = str(getattr(error, "message", "") or error)
        if any(record in text for record in _TLS_RECORDS) and url.startswith("http:"):
            return explain_https_required(url)
        return f"the answer is not HTTP; check that the address leads to the right port ({_first_line(text)})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        hint = "; if it speaks TLS there, use https" if url.startswith("http:") else ""
        return f"the connection was closed without an answer{hint}"
    if isinstance(inner, TimeoutError | asyncio.TimeoutError):
        return "no answer in time; check that the host runs and that no firewall drops the packets"
    if isinstance(inner, ConnectionRefusedError):
        return "nothing listens there (connection refused); check the address, and that the program runs"
    if isinstance(inner, ConnectionResetError):
        hint = "; if it speaks TLS there, use https" if url.startswith("http:") else ""
        return f"the connection was reset{hint}"
    if isinstance(inner, OSError) and inner.errno in _NO_ROUTE:
        return "there is no route to the host; check the address and this machine's network"
    return _error_text(inner)


def _error_text(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    strerror = getattr(error, "strerror", None)
    return _first_line(str(strerror or error)) or type(error).__name__


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200].rstrip(" :,.")
