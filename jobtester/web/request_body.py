"""Bodies: what is posted to us, read within bounds; and what peers break, kept apart from errors of our own."""

from __future__ import annotations

import asyncio
import logging

import structlog
from aiohttp import http_exceptions, web

from jobtester.http import BodyTooLargeError, read_bounded

log = structlog.get_logger()

_PATIENCE_S = 30.0
_BROKEN = (web.RequestPayloadError, ConnectionError)


class BodyReadError(Exception):
    """A body that was not read to its end; `status` is what to answer."""

    def __init__(self, status: int, message: str) -> None:
        """Say why."""
        super().__init__(message)
        self.status = status


async def read_limited(request: web.Request, max_bytes: int, patience_s: float = _PATIENCE_S) -> bytes:
    """Read a body of at most `most` bytes, exactly as it was sent, within `patience_s` seconds.

    Raises BodyReadError.
    """
    too_large = BodyReadError(413, f"larger than {max_bytes} bytes")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    try:
        async with asyncio.timeout(patience_s):
            return await read_bounded(request.content, max_bytes)
    except BodyTooLargeError as error:
        raise too_large from error
    except TimeoutError as error:
        raise BodyReadError(408, f"the body was not there within {patience_s:g} s") from error
    except _BROKEN as error:
        raise BodyReadError(400, "the body broke off") from error


def server_logger() -> logging.Logger:
    """Give the logger for the HTTP server: what is no HTTP at all is a peer's fault, and no error of ours."""
    found = logging.getLogger("jobtester.http")
    if not any(isinstance(one, _Peers) for one in found.filters):
        found.addFilter(_Peers())
    return found


class _Peers(logging.Filter):
    """Lets pass what is about the server itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if not isinstance(error, (http_exceptions.HttpProcessingError, *_BROKEN)):
            return True
        log.debug("request_broken", problem=type(error).__name__)
        return False
