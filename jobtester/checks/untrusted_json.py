"""Strict JSON: what strangers send, read without their being able to break the reader.

The reader of the standard library is used although faster ones exist: it alone raises MemoryError where others end the
process.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse_json(content: bytes | str) -> Any:
    """Read JSON in UTF-8. Raises ValueError with a reason, also for NaN, infinities and nesting that nobody means."""
    try:
        return json.loads(content if isinstance(content, str) else content.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
