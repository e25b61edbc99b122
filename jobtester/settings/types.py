"""The types of keys in config.toml: each parses what people write, or explains what to write instead."""

from __future__ import annotations

import ipaddress
import re
from datetime import date, datetime
from typing import Annotated
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from jobtester.domain.units import parse_duration, parse_size, parse_wei


class Section(BaseModel):
    """A table of config.toml: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


_MIN_TOKEN_LENGTH = 16


def _check_web_address(value: str) -> str:
    # The address is shown to everybody, so it must not carry a password.
    if "@" in _split_http_url(value).netloc:
        raise ValueError(
            "has to be without user and password, since it is shown; a proxy may ask for a gateway's token"
        )
    return value.rstrip("/")


def _split_http_url(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValueError("has to be an http:// or https:// address with a host")
    return parts


class SecretUrl(SecretStr):
    """An address of which only scheme and host are shown: anybody who knows the rest can post to it."""

    def _display(self) -> str:
        parts = urlsplit(self.get_secret_value())
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/**********"


def _check_secret_address(value: SecretUrl) -> SecretUrl:
    _split_http_url(value.get_secret_value())
    return value


def _check_timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no timezone is called {value!r}; use a name such as UTC or Europe/Berlin") from error
    return value


def _check_cron(value: str) -> str:
    # Imported here because most configurations have no cron expression, and the library costs start-up time.
    from jobtester.settings.cron import CronSchedule

    CronSchedule.parse(value)
    return value


def _parse_instant(value: object) -> datetime:
    # TOML has dates and times of its own; in the environment they are texts.
    message = "has to be a date and time such as 2026-12-24T18:00:00Z, or a date"
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - its table names the timezone
    if not isinstance(value, str):
        raise ValueError(message)
    try:
        return datetime.fromisoformat(value.strip())
    except ValueError as error:
        raise ValueError(message) from error


def _check_read_secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < _MIN_TOKEN_LENGTH:
        raise ValueError(f"has to have at least {_MIN_TOKEN_LENGTH} characters, so that it cannot be guessed")
    return value


def _check_header(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z0-9-]{1,64}", value):
        raise ValueError('has to be the name of a header, such as "X-Forwarded-User"')
    return value


def _normalize_network(value: str) -> str:
    # A single address is a network of one; host bits that are set are cleared.
    try:
        return str(ipaddress.ip_network(value.strip(), strict=False))
    except ValueError as error:
        raise ValueError('has to be a network such as "10.0.0.0/8" or "fd00::/8"') from error


def _check_positive(value: float) -> float:
    if value <= 0:
        raise ValueError("has to be longer than 0")
    return value


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
PositiveDuration = Annotated[float, BeforeValidator(parse_duration), AfterValidator(_check_positive)]
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
Wei = Annotated[int, BeforeValidator(parse_wei)]
WebAddress = Annotated[str, AfterValidator(_check_web_address)]
SecretAddress = Annotated[SecretUrl, AfterValidator(_check_secret_address)]
Instant = Annotated[datetime, BeforeValidator(_parse_instant)]
ReadToken = Annotated[SecretStr, AfterValidator(_check_read_secret)]
HeaderName = Annotated[str, AfterValidator(_check_header)]
NetworkRange = Annotated[str, AfterValidator(_normalize_network)]
Cron = Annotated[str, AfterValidator(_check_cron)]
Timezone = Annotated[str, AfterValidator(_check_timezone)]
