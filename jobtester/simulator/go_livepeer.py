"""What go-livepeer fixes: its AI capabilities, its builds, and how it spells addresses and compares service URIs."""

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
    """Spell an address in mixed case, always the same way; not the real checksum, which nobody needs to verify."""
    digits = address.lower().removeprefix("0x")
    bits = hashlib.sha256(digits.encode()).hexdigest()
    return "0x" + "".join(
        digit.upper() if int(bit, 16) > 7 else digit for digit, bit in zip(digits, bits, strict=False)
    )


def host_and_port(uri: str) -> str:
    """Reduce a service URI to the host and port by which the gateway reaches the orchestrator."""
    parts = urlsplit(uri if "//" in uri else f"https://{uri}")
    return f"{(parts.hostname or '').lower()}:{parts.port or 443}"


@dataclass(frozen=True, slots=True)
class Build:
    """One build. `unselectable` is what a client gets when no orchestrator could be selected at the last try.

    `capped`: the tries are limited in number as well as by the window. `llm_form`: llm jobs are multipart forms.
    `mainline_discovery`: it has getNetworkCapabilities. `byoc`: it has external capabilities.
    """

    livepeer_version: str
    unselectable: Literal["eof", "503"]
    caps_tries: bool = True
    takes_llm_forms: bool = False
    has_network_capabilities: bool = True
    has_byoc: bool = True


LATEST_VERSION = "0.9.1"
BUILDS = {
    "0.0.11": Build(
        "0.8.0", "503", caps_tries=False, takes_llm_forms=True, has_network_capabilities=False, has_byoc=False
    ),  # fork of 2024, once the usual image
    "0.8.6": Build("0.8.6", "503"),
    LATEST_VERSION: Build("0.9.1", "eof"),
}


def find_build(version: str) -> Build:
    """Return the build of that version. Raises ValueError for one that is not known."""
    try:
        return BUILDS[version]
    except KeyError:
        raise ValueError(f"unknown version {version!r}: one of {', '.join(BUILDS)}") from None
