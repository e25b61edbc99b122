"""The numbers, display names and slugs of AI capabilities, and how addresses and URIs compare."""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit

DISPLAY = {
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
SLUG = {number: name.lower().replace(" ", "-") for number, name in DISPLAY.items()}
NUMBER = {slug: number for number, slug in SLUG.items()}
BATCH = tuple(slug for number, slug in SLUG.items() if number not in (35, 37))
BYOC = 37
ZERO_ADDRESS = "0x" + "0" * 40


def mixed_case(address: str) -> str:
    """Spell an address in mixed case, always the same way; not the real checksum, which nobody needs to verify."""
    digits = address.lower().removeprefix("0x")
    bits = hashlib.sha256(digits.encode()).hexdigest()
    return "0x" + "".join(
        digit.upper() if int(bit, 16) > 7 else digit for digit, bit in zip(digits, bits, strict=False)
    )


def same_host(uri: str) -> str:
    """Reduce a service URI to the host and port by which the gateway reaches the orchestrator."""
    parts = urlsplit(uri if "//" in uri else f"https://{uri}")
    return f"{(parts.hostname or '').lower()}:{parts.port or 443}"
