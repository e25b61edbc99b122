"""Decide which addresses a file may be fetched from: untrusted responses may name addresses of our own network."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from typing import TypeAlias
from urllib.request import getproxies

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")
# Only from this range are IPv6 addresses assigned. The rest is special in ways that grow with new standards, so it is
# refused as a whole rather than listed.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # the first half of an interface identifier that ends in an IPv4 address
# Cloud services that answer any machine inside the cloud, at addresses that look public.
_CLOUD_SERVICES = frozenset({ipaddress.ip_address("168.63.129.16")})
_DISCARD_PORT = 9


class ForbiddenAddressError(OSError):
    """The name stands for an address of the tester itself, or of a network that is not public."""


class LocalAddressBlockingResolver(AbstractResolver):
    """Resolves names, and refuses those that stand for an address of the tester itself or of a private network.

    aiohttp asks it at the moment of connecting, so a name that resolves to something else after it was checked is no
    way around. What the operator configured is trusted: the gateway, at its own port and no other, `networks`, and
    proxies.
    """

    def __init__(self, resolver: AbstractResolver, gateway: URL, networks: Sequence[Network] = ()) -> None:
        """Resolve with `resolver`; files may also come from the gateway and from these networks."""
        self._proxies = {URL(proxy).host or "" for proxy in getproxies().values() if "://" in proxy}
        self._gateway = gateway
        self._networks = networks
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return every address of a name.

        Raises ForbiddenAddressError, or another OSError where the name is unknown.
        """
        # A proxy is resolved because the operator wants it. That a file's own URL names the proxy is refused before, in
        # allows_host().
        if host in self._proxies:
            return await self._resolver.resolve(host, port, family)
        return await self._resolve_allowed(host, port, family)

    async def allows_host(self, host: str, port: int) -> bool:
        """Return True if a file's URL may name this host, an IP address or a name.

        A name that is unknown here is allowed: a proxy may know it, and without one the connection fails.
        """
        try:
            return await self._allows_address(host, port)
        except ValueError:  # a name
            try:
                await self._resolve_allowed(host, port, socket.AF_UNSPEC)
            except ForbiddenAddressError:
                return False
            except OSError:
                pass
            return True

    async def close(self) -> None:
        """Close the resolver."""
        await self._resolver.close()

    async def _resolve_allowed(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        if (host, port) != (self._gateway.host, self._gateway.port):
            for result in results:
                if not await self._allows_address(result["host"], port):
                    raise ForbiddenAddressError(
                        errno.EACCES, f"{host} stands for an address of the tester itself, or of a private network"
                    )
        return results

    async def _allows_address(self, address: str, port: int) -> bool:
        """Return True if a file may be fetched from an IP address. Raises ValueError for what is none."""
        if is_allowed(address, self._networks):
            return True
        if port != self._gateway.port:
            return False
        # Other names and the bare address of the gateway are as good as its URL, at its port.
        host = self._gateway.host or ""
        try:
            results = await self._resolver.resolve(host, self._gateway.port or 0, socket.AF_UNSPEC)
        except OSError:
            return address == host
        return address == host or any(address == result["host"] for result in results)


def is_allowed(address: str, networks: Sequence[Network] = ()) -> bool:
    """Return True if an IP address is public or in one of the networks, and so is every address embedded in it.

    This machine's own addresses are never public. Raises ValueError for what is no IP address.
    """
    outer = ipaddress.ip_address(address.split("%")[0])
    if any(outer.version == network.version and outer in network for network in networks):
        return True
    embedded = tuple(_embedded_addresses(outer))
    # A mapped address, or one that NAT64 translates, is an IPv4 address in another notation: only that one counts. In
    # the address of a tunnel both count.
    is_only_notation = isinstance(outer, ipaddress.IPv6Address) and (outer.ipv4_mapped is not None or outer in _NAT64)
    return (_is_public(outer) or (bool(embedded) and is_only_notation)) and all(
        _is_public(inner) or any(inner in network for network in networks) for inner in embedded
    )


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    if not address.is_global or address.is_multicast or address.is_reserved or address in _CLOUD_SERVICES:
        return False
    return not _is_own_address(address)


def _embedded_addresses(outer: _Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 addresses that an IPv6 address carries, in each of the ways there are."""
    if isinstance(outer, ipaddress.IPv4Address):
        return
    candidates = [outer.ipv4_mapped, outer.sixtofour, *(outer.teredo or ())]
    is_isatap = (int(outer) >> 32) & 0xFFFFFFFF in _ISATAP
    if outer in _NAT64 or is_isatap or (outer in _IPV4_COMPATIBLE and int(outer) > 1):  # ::1 is no 0.0.0.1
        candidates.append(ipaddress.IPv4Address(int(outer) & 0xFFFFFFFF))
    yield from (candidate for candidate in candidates if candidate is not None)


def _is_own_address(address: _Address) -> bool:
    """Return True if one of this machine's interfaces has the address, which may well be a public one."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        # The system routes packets to one of its own addresses from that very address. Connecting a datagram socket
        # chooses the route and sends nothing.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _DISCARD_PORT))
            return ipaddress.ip_address(probe.getsockname()[0]) == address
    except OSError:
        return False
