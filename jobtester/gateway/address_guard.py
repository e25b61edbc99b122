"""Reach: which addresses a file may be fetched from, since answers come from strangers and may name our own network."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Collection, Iterator, Sequence
from typing import TypeAlias
from urllib.request import getproxies

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # the first half of an interface's number that ends in an IPv4 address
# Services of clouds that answer any machine inside them at addresses which look public.
_CLOUD = frozenset({ipaddress.ip_address("168.63.129.16")})
_DISCARD = 9


class ForbiddenAddressError(OSError):
    """The name stands for an address of the tester itself, or of a network that is not public."""


class LocalAddressBlockingResolver(AbstractResolver):
    """Resolves names, and refuses those that stand for an address of the tester itself or of a private network.

    It is asked again at the moment of connecting, so that a name that changes its mind in between is no way around.
    What the operator configured is trusted: the gateway, at its own port and no other, `networks`, and proxies.
    """

    def __init__(self, resolver: AbstractResolver, gateway: URL, networks: Sequence[Network] = ()) -> None:
        """Resolve with `resolver`; files may also come from the gateway and from these networks."""
        self._proxies = {URL(one).host or "" for one in getproxies().values() if "://" in one}
        self._gateway = gateway
        self._networks = networks
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return every address of a name.

        Raises ForbiddenAddressError, or another OSError where the name is not known.
        """
        if host in self._proxies:
            return await self._resolver.resolve(host, port, family)
        return await self.resolve_allowed(host, port, family)

    async def resolve_allowed(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return every address of a name that a file may come from; a proxy's own address is none of these."""
        found = await self._resolver.resolve(host, port, family)
        if (host, port) != (self._gateway.host, self._gateway.port):
            for address in (one["host"] for one in found):
                if not await self.allows_address(address, port):
                    raise ForbiddenAddressError(
                        errno.EACCES, f"{host} stands for an address of the tester itself, or of a private network"
                    )
        return found

    async def allows_address(self, address: str, port: int) -> bool:
        """Whether a file may be fetched from an IP address. Raises ValueError for what is none."""
        if is_allowed(address, self._networks):
            return True
        return port == self._gateway.port and address in await self._gateway_addresses()

    async def _gateway_addresses(self) -> Collection[str]:
        """Return the addresses that the gateway's own URL stands for just now."""
        host = self._gateway.host or ""
        try:
            found = await self._resolver.resolve(host, self._gateway.port or 0, socket.AF_UNSPEC)
        except OSError:
            return {host}
        return {host, *(one["host"] for one in found)}

    async def close(self) -> None:
        """Close the resolver."""
        await self._resolver.close()


def is_allowed(address: str, networks: Sequence[Network] = ()) -> bool:
    """Return True if an IP address is public, or lies in one of the networks; also every one that it wraps up.

    This machine's own addresses are never public. Raises ValueError for what is no IP address.
    """
    whole = ipaddress.ip_address(address.split("%")[0])
    if any(whole.version == one.version and whole in one for one in networks):
        return True
    embedded = tuple(_embedded(whole))
    return (_is_public(whole) or (bool(embedded) and _is_translated(whole))) and all(
        _is_public(one) or any(one in network for network in networks) for one in embedded
    )


def _is_public(one: _Address) -> bool:
    if isinstance(one, ipaddress.IPv6Address) and one not in _GLOBAL_UNICAST:
        return False
    return one.is_global and not one.is_multicast and not one.is_reserved and one not in _CLOUD and not _local(one)


def _is_translated(whole: _Address) -> bool:
    """Return True if an IPv6 address is only another way to write an IPv4 address, or leads to it through NAT64."""
    return isinstance(whole, ipaddress.IPv6Address) and (whole.ipv4_mapped is not None or whole in _NAT64)


def _embedded(whole: _Address) -> Iterator[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address carries, in each of the ways there are."""
    if isinstance(whole, ipaddress.IPv4Address):
        return
    known = [whole.ipv4_mapped, whole.sixtofour, *(whole.teredo or ())]
    isatap = (int(whole) >> 32) & 0xFFFFFFFF in _ISATAP
    if whole in _NAT64 or isatap or (whole in _COMPATIBLE and int(whole) > 1):
        known.append(ipaddress.IPv4Address(int(whole) & 0xFFFFFFFF))
    yield from (one for one in known if one is not None)


def _local(one: _Address) -> bool:
    """Return True if one of this machine's interfaces has the address: then answers would come from there too."""
    family = socket.AF_INET if one.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(one), _DISCARD))  # sends nothing
            return ipaddress.ip_address(probe.getsockname()[0]) == one
    except OSError:
        return False
