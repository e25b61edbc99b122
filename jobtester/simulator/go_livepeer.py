"""Facts of go-livepeer: AI capabilities, the builds that can be simulated, spelling of addresses and service URIs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

DISPLAY_NAMES = {
    27: "Text to image",
    28: "Image to image",
    29: "Image to video",
    30: "Upscale",
    31: "Audio to text",
    32: "Segment anything 2",
    33: "Llm",
    34: "Image to text",
    35: "Live video to video",
    36: "Text to speech",
    37: "byoc",
}
SLUGS = {number: name.lower().replace(" ", "-") for number, name in DISPLAY_NAMES.items()}
NUMBERS = {slug: number for number, slug in SLUGS.items()}
BATCH_PIPELINES = tuple(slug for number, slug in SLUGS.items() if number not in (35, 37))
BYOC_NUMBER = 37
ZERO_ADDRESS = "0x" + "0" * 40


def to_mixed_case(address: str) -> str:
    """Return an address in mixed case, the same each time. It is not the real checksum, which no test verifies."""
    digits = address.lower().removeprefix("0x")
    bits = hashlib.sha256(digits.encode()).hexdigest()
    return "0x" + "".join(
        digit.upper() if int(bit, 16) > 7 else digit for digit, bit in zip(digits, bits, strict=False)
    )


def host_and_port(uri: str) -> str:
    """Return the host and port of a service URI, by which a gateway tells orchestrators apart."""
    parts = urlsplit(uri if "//" in uri else f"https://{uri}")
    return f"{(parts.hostname or '').lower()}:{parts.port or 443}"


@dataclass(frozen=True, slots=True)
class Build:
    """One build of go-livepeer, by what a client notices.

    `unselectable` is what the client gets if no orchestrator could be selected at the last try. `caps_tries`: the tries
    are limited in number as well as by the retry window. `takes_llm_forms`: llm jobs are multipart forms.
    `has_network_capabilities`: it serves getNetworkCapabilities. `has_byoc`: it takes jobs for external capabilities.
    """

    livepeer_version: str
    unselectable: Literal["eof", "503"]
    caps_tries: bool = True
    takes_llm_forms: bool = False
    has_network_capabilities: bool = True
    has_byoc: bool = True


LATEST_VERSION = "0.9.1"
BUILDS = {
    # A fork of 2024, which was the usual image of gateways once.
    "0.0.11": Build(
        "0.8.0", "503", caps_tries=False, takes_llm_forms=True, has_network_capabilities=False, has_byoc=False
    ),
    "0.8.6": Build("0.8.6", "503"),
    LATEST_VERSION: Build("0.9.1", "eof"),
}


def find_build(version: str) -> Build:
    """Return the build of a version. ValueError if it is unknown."""
    try:
        return BUILDS[version]
    except KeyError:
        raise ValueError(f"unknown version {version!r}: one of {', '.join(BUILDS)}") from None
