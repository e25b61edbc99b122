"""Multipart bodies: form data as a gateway reads it, the same bytes for the same content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


def encode_multipart(fields: Mapping[str, Any], files: Mapping[str, tuple[str, bytes]]) -> tuple[bytes, str]:
    """Encode fields as text and files with their names; give the body and its content type.

    The boundary follows from the content, so that equal content gives equal bytes and no content can contain it.
    """
    parts = [_part(f'name="{_quoted(name)}"', form_text(value).encode()) for name, value in fields.items()]
    parts += [
        _part(f'name="{_quoted(name)}"; filename="{_quoted(filename)}"', content, "application/octet-stream")
        for name, (filename, content) in files.items()
    ]
    boundary = hashlib.sha256(b"".join(parts)).hexdigest()[:32].encode()
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts) + b"--%b--\r\n" % boundary
    return body, f"multipart/form-data; boundary={boundary.decode()}"


def form_text(value: Any) -> str:
    """Write a value as the text of a form field: true and false, whole numbers in base 10, anything nested as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _part(disposition: str, content: bytes, kind: str = "") -> bytes:
    head = f"Content-Disposition: form-data; {disposition}\r\n"
    head += f"Content-Type: {kind}\r\n" if kind else ""
    return head.encode() + b"\r\n" + content


def _quoted(text: str) -> str:
    return text.translate(_ESCAPES)
