"""Values of config.toml: durations, sizes, amounts, addresses and timezones, from the texts people write."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from jobtester.domain.units import parse_duration

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?\s*")
_SIZES = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

_LARGEST_SIZE = 10**6 * 2**30


def _size(value: object) -> int:
    """Read a size such as "64MiB" as bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('write a size as "64MiB", "500kB" or a number of bytes')
    size = float(match[1]) * _SIZES[match[2] or "B"]
    if size > _LARGEST_SIZE:
        raise ValueError("has to be less than a million GiB")
    return int(size)


def _wei(value: object) -> int:
    """Read an amount such as "0.01 ETH" or "5000 wei" as wei."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"\s*(\d+)(?:\.(\d{1,18}))?\s*(wei|ETH|eth)?\s*", value) if isinstance(value, str) else None
    if match is None or (match[2] and (match[3] or "wei") == "wei"):
        raise ValueError('write an amount as "0.01 ETH" or "5000 wei"')
    if (match[3] or "wei") == "wei":
        return int(match[1])
    return int(match[1]) * 10**18 + int((match[2] or "").ljust(18, "0"))


def _web_address(value: str) -> str:
    """Check an http(s) address and drop the slash at its end; it is shown to everybody, so it carries no password."""
    if "@" in _parted(value).netloc:
        raise ValueError(
            "has to be without user and password, since it is shown; a proxy may ask for a gateway's token"
        )
    return value.rstrip("/")


def _parted(value: str) -> SplitResult:
    """Take an http(s) address apart."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("has to be an http:// or https:// address with a host")
    return parts


class SecretUrl(SecretStr):
    """An address of which only scheme and host are shown, since the rest lets whoever knows it in."""

    def _display(self) -> str:
        parts = urlsplit(self.get_secret_value())
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/**********"


def _secret_address(value: SecretUrl) -> SecretUrl:
    _parted(value.get_secret_value())
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no timezone is called {value!r}; use a name such as UTC or Europe/Berlin") from error
    return value


def _cron(value: str) -> str:
    """Check a cron expression; what reads it is loaded only where there is one."""
    from jobtester.settings.cron import CronSchedule

    CronSchedule.parse(value)
    return value


def _network(value: str) -> str:
    """Check a network written as CIDR; a single address is a network of one."""
    try:
        return str(ipaddress.ip_network(value.strip(), strict=False))
    except ValueError as error:
        raise ValueError('has to be a network such as "10.0.0.0/8" or "fd00::/8"') from error


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("has to be longer than nothing")
    return value


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
PositiveDuration = Annotated[float, BeforeValidator(parse_duration), AfterValidator(_positive)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Wei = Annotated[int, BeforeValidator(_wei)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
SecretAddress = Annotated[SecretUrl, AfterValidator(_secret_address)]
NetworkRange = Annotated[str, AfterValidator(_network)]
Cron = Annotated[str, AfterValidator(_cron)]
Timezone = Annotated[str, AfterValidator(_zone)]
