"""Reach: which addresses a file may be fetched from, since answers come from strangers and may name our own network."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator
from typing import TypeAlias
from urllib.request import getproxies

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
_DISCARD = 9


class ForbiddenAddress(OSError):
    """The name stands for an address of the tester itself."""


class Outside(AbstractResolver):
    """Resolves names, and refuses those that stand for an address of the tester itself.

    It is asked again at the moment of connecting, so that a name that changes its mind in between is no way around.
    `trusted` names are configured by the operator: the gateway's own, and a proxy's.
    """

    def __init__(self, resolver: AbstractResolver, *trusted: str) -> None:
        """Resolve with `resolver`; trust these names, whatever they stand for."""
        proxies = {URL(one).host or "" for one in getproxies().values() if "://" in one}
        self._trusted = {*trusted, *proxies}
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Give every address of a name. Raises ForbiddenAddress, or another OSError where the name is not known."""
        found = await self._resolver.resolve(host, port, family)
        if host not in self._trusted and any(ours(one["host"]) for one in found):
            raise ForbiddenAddress(errno.EACCES, f"{host} stands for an address of the tester itself")
        return found

    async def close(self) -> None:
        """Let go of the resolver."""
        await self._resolver.close()


def ours(address: str) -> bool:
    """Tell whether an IP address is this machine's, on any of its networks, or its link's; also a wrapped-up one."""
    whole = ipaddress.ip_address(address.split("%")[0])
    return any(
        one.is_loopback or one.is_link_local or one.is_unspecified or one.is_multicast or _local(one)
        for one in (whole, *_inside(whole))
    )


def _inside(whole: _Address) -> Iterator[ipaddress.IPv4Address]:
    """Give the IPv4 addresses that an IPv6 address carries, in each of the ways there are."""
    if isinstance(whole, ipaddress.IPv4Address):
        return
    known = [whole.ipv4_mapped, whole.sixtofour, *(whole.teredo or ())]
    if whole in _NAT64 or (whole in _COMPATIBLE and int(whole) > 1):
        known.append(ipaddress.IPv4Address(int(whole) & 0xFFFFFFFF))
    yield from (one for one in known if one is not None)


def _local(one: _Address) -> bool:
    """Tell whether one of this machine's interfaces has the address: then it is also where answers would come from."""
    family = socket.AF_INET if one.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(one), _DISCARD))  # sends nothing
            return ipaddress.ip_address(probe.getsockname()[0]) == one
    except OSError:
        return False
