"""Orchestrators: their addresses, service URIs, capabilities and prices, each in one normal form."""

from __future__ import annotations

import ipaddress
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

BYOC = "byoc"
LIVE_VIDEO = "live-video-to-video"  # the pipeline whose jobs are streams
SINGLE_SHOT = "single-shot"  # a live runner's mode: each request is a job of its own
_MAX_URL_CHARS = 1_000
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Target(NamedTuple):
    """One (address, service URI), where a gateway sends a job. An address with several URIs is several targets."""

    address: str
    service_uri: str


class CapabilityKind(StrEnum):
    """How an orchestrator serves a capability. The same app may be served in two ways, which are tested apart."""

    BATCH = "batch"
    BYOC = "byoc"
    LIVE_RUNNER = "live-runner"


class CapabilityKey(NamedTuple):
    """One (orchestrator, service URI, pipeline, model, kind): what a job tests and its history is kept under."""

    orchestrator: str
    service_uri: str
    pipeline: str
    model: str
    kind: str = CapabilityKind.BATCH


@dataclass(frozen=True, slots=True)
class Price:
    """An orchestrator's price: `wei_per_unit` wei for each `units` of the pipeline's own unit."""

    wei_per_unit: int
    units: int = 1


@dataclass(frozen=True, slots=True)
class RunnerOffer:
    """How an orchestrator serves an app itself, without a gateway (docs/live-runner.md).

    `url` is where the app's own paths begin, without a slash at its end. `unit` is what the price is for, empty
    without a price. `is_foreign` means that the URL is on another host or port than the service URI,
    `is_listed_elsewhere` that only a directory lists it and not the orchestrator.
    """

    url: str
    mode: str
    unit: str = ""
    gpu: str = ""
    schema_url: str = ""
    is_foreign: bool = False
    is_listed_elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Capability:
    """One (pipeline, model) that an orchestrator advertises.

    `pipeline` is the slug, for BYOC the external capability's name, for a live runner the app's. `capacity` counts free
    slots, `in_use` taken ones; both 0 means unknown. `warm` is None where discovery does not say. `runner` is set for
    the app of a live runner, whose `model` is its version.
    """

    pipeline: str
    model: str
    byoc: bool = False
    warm: bool | None = None
    capacity: int = 0
    in_use: int = 0
    price: Price | None = None
    runner: RunnerOffer | None = None

    @property
    def kind(self) -> CapabilityKind:
        """Return how it is served."""
        if self.runner is not None:
            return CapabilityKind.LIVE_RUNNER
        return CapabilityKind.BYOC if self.byoc else CapabilityKind.BATCH

    @property
    def is_live_video(self) -> bool:
        """Return True if a job of it is a stream through a gateway."""
        return self.pipeline == LIVE_VIDEO and not self.byoc and self.runner is None

    @property
    def is_priced(self) -> bool:
        """Return True if a job of it costs anything, as far as is known."""
        return self.price is not None and self.price.wei_per_unit > 0

    @property
    def is_busy(self) -> bool:
        """Return True if every advertised slot is taken."""
        return self.capacity == 0 and self.in_use > 0


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """A GPU node as discovered: `address` lower-case, `local_address` what it signs with (may differ, may be empty).

    `has_runner_list` means that it has answered with a list of its live runners, which may be empty.
    """

    address: str
    service_uri: str
    capabilities: tuple[Capability, ...] = ()
    local_address: str = ""
    version: str = ""
    has_runner_list: bool = False

    @property
    def target(self) -> Target:
        """Return where a gateway sends the orchestrator's jobs."""
        return Target(self.address, self.service_uri)


def normalize_address(text: str) -> str:
    """Return an Ethereum address in the one form used here: lower-case, no blanks around it."""
    return text.strip().lower()


@lru_cache(maxsize=16_384)
def shorten_address(address: str) -> str:
    """Return the beginning and the end of an address, which are enough to recognize it."""
    return f"{address[:8]}…{address[-4:]}" if len(address) > 14 else address


def parse_endpoint(uri: str) -> tuple[str, int] | None:
    """Return (host, port) of a service URI, lower-case and with the scheme's default port; None if it has no host.

    A scheme may be missing, as in what an orchestrator reports of itself. Path, user and a dot at the end make no
    difference; an IPv6 literal and an international name are brought to one form each.
    """
    text = uri.strip()
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    host = (host or "").rstrip(".")
    if not host or port == 0:
        return None
    return _normalize_host(host), port or _DEFAULT_PORTS.get(parts.scheme, 443)


def is_same_origin(url: str, service_uri: str) -> bool:
    """Return True if a URL has the scheme, host and port of a service URI, which may lack its scheme."""
    base = service_uri.strip() if "://" in service_uri else f"https://{service_uri.strip()}"
    try:
        has_same_scheme = urlsplit(url).scheme == urlsplit(base).scheme
    except ValueError:
        return False
    return has_same_scheme and parse_endpoint(url) is not None and parse_endpoint(url) == parse_endpoint(base)


def is_usable_url(url: str) -> bool:
    """Return True if requests can be sent below a URL that an orchestrator gave: whole, and without user or query."""
    if not url.isascii() or set(url) & set(' ?#\\"<>') or ".." in url or len(url) > _MAX_URL_CHARS:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that do not match
        return False
    return parts.scheme in ("http", "https") and "@" not in parts.netloc and parse_endpoint(url) is not None


def _normalize_host(host: str) -> str:
    # `host` is lower-case; two hosts are the same exactly if the returned texts are equal.
    if ":" in host:
        with suppress(ValueError):
            return str(ipaddress.ip_address(host))
    if host.isascii():
        return host
    labels = unicodedata.normalize("NFC", host).split(".")
    return ".".join(label if label.isascii() else "xn--" + label.encode("punycode").decode() for label in labels)


def slug_from_name(name: str) -> str:
    """Return the slug of a route (`text-to-image`) for a display name (`Text to image`)."""
    slug = name.strip().lower().replace(" ", "-")
    return "llm" if slug == "large-language-model" else slug


def display_name(slug: str) -> str:
    """Return go-livepeer's display name for a slug, under which the Leaderboard groups; BYOC names stay as they are."""
    return slug if slug == BYOC else (slug[:1].upper() + slug[1:]).replace("-", " ")


def slug_from_capability(capability: int) -> str | None:
    """Return the slug for a go-livepeer capability number of the batch kind, None for any other."""
    return BATCH_SLUGS.get(capability)


BATCH_SLUGS = {
    27: "text-to-image",
    28: "image-to-image",
    29: "image-to-video",
    30: "upscale",
    31: "audio-to-text",
    32: "segment-anything-2",
    33: "llm",
    34: "image-to-text",
    35: "live-video-to-video",
    36: "text-to-speech",
}
