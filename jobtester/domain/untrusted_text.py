"""Untrusted text: check what the network sends as a name or an address, and clean what people are shown.

Discovery, the events and the receiver pass their texts through this module once; everything behind it may rely on valid
Unicode without control characters, of bounded length.
"""

from __future__ import annotations

import re

MAX_NAME_CHARS = 1_000

# Characters that nobody sees: directions, joiners, zero widths, tags. With them two names could look the same.
_INVISIBLE = (
    "\u00ad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
# Lone surrogates, which cannot be encoded as UTF-8, and noncharacters.
_INVALID = "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
_FORBIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f{_INVISIBLE}{_INVALID}]")
_FORBIDDEN_IN_PROSE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_INVISIBLE}{_INVALID}]")
_ADDRESS = re.compile("0x[0-9a-f]{40}")


def clean_name(value: object) -> str:
    """Return a name without blanks around it, or an empty text if the value cannot be one.

    An invalid name is rejected and not corrected: a corrected one could be the name of something else.
    """
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARS or _FORBIDDEN.search(value):
        return ""
    return value.strip()


def clean_address(value: object) -> str:
    """Return an Ethereum address in lower case, or an empty text if it is none."""
    text = value.strip().lower() if isinstance(value, str) and len(value) <= MAX_NAME_CHARS else ""
    return text if _ADDRESS.fullmatch(text) else ""


def clean_label(text: str) -> str:
    """Return a text of one line with U+FFFD in place of each forbidden character."""
    return _FORBIDDEN.sub("\ufffd", text)


def clean_prose(text: str, max_chars: int | None = None) -> str:
    """Return a text of any number of lines, cut after `max_chars`, with U+FFFD in place of each forbidden character."""
    return _FORBIDDEN_IN_PROSE.sub("\ufffd", text[:max_chars].replace("\r\n", "\n"))
