"""Proxies: which way out the environment names for an address."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from yarl import URL

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxies:
    """What HTTP_PROXY, HTTPS_PROXY and NO_PROXY said when they were looked at, once and not for each request.

    aiohttp's own `trust_env` looks at them, and at a .netrc, anew before every request, and in a thread. NO_PROXY is
    read as Go reads it: host names with their subdomains, `.domain` for subdomains alone, IP addresses and CIDR
    networks, each but a network with an optional port, in any case; `*` stands for everything.
    """

    named: dict[str, str]

    @classmethod
    def of_environment(cls) -> Proxies:
        """Look at the environment, names in either case."""
        return cls(getproxies_environment())

    def way(self, url: str) -> dict[str, Any]:
        """Give the arguments with which aiohttp sends a request to `url` the right way; none where there is no proxy.

        Credentials in a proxy's address are given to the proxy alone.
        """
        proxy = self.proxy_for(url)
        return {} if proxy is None else {"proxy": proxy}

    def proxy_for(self, url: str) -> URL | None:
        """Return the proxy through which `url` is reached; None if it is reached directly."""
        if not self.named:
            return None
        parts = urlsplit(url)
        named = self.named.get(parts.scheme)
        if not named or _is_bypassed(parts.hostname or "", parts.port or _PORTS.get(parts.scheme), self._exceptions):
            return None
        return URL(named if "://" in named else f"http://{named}")

    @property
    def _exceptions(self) -> str:
        return self.named.get("no", "")


def masked(proxy: URL) -> str:
    """Return a proxy's address as people may see it: without its user and password."""
    hidden = proxy.with_user(None) if proxy.user is not None or proxy.password is not None else proxy
    return str(hidden).rstrip("/")


@lru_cache(1024)
def _is_bypassed(host: str, port: int | None, exceptions: str) -> bool:
    """Return True if an entry of NO_PROXY names the host."""
    host = host.lower().rstrip(".")
    address = _address(host)
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
    name, named_port = _split_port(entry)
    if named_port is not None and named_port != port:
        return False
    named_address = _address(name)
    if named_address is not None or address is not None:
        return named_address == address
    name = name.removeprefix("*").rstrip(".")
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}")


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split `name`, `name:port`, `address`, `[address]` or `[address]:port`; a bare IPv6 address has no port."""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        digits = rest.removeprefix(":")
    elif entry.count(":") == 1:
        name, _, digits = entry.partition(":")
    else:
        name, digits = entry, ""
    return name, int(digits) if digits.isascii() and digits.isdecimal() else None


def _address(text: str) -> _Address | None:
    """Read an IP address, an IPv4 address in IPv6's clothes as the IPv4 address; None for a name."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
