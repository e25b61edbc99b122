"""Set up the log: for people on a terminal, for machines otherwise."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal, TextIO

import orjson
import structlog

Verbosity = Literal["quiet", "normal", "verbose"]
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# What the command line asks for goes before the configuration, also after a reload.
_FORCED_LEVELS: dict[Verbosity, str] = {"quiet": "error", "verbose": "debug"}
_verbosity: Verbosity = "normal"


def set_verbosity(verbosity: Verbosity) -> None:
    """Make every later `configure_logs` write errors only, or everything; `normal` leaves the level to its caller."""
    global _verbosity
    _verbosity = verbosity


def configure_logs(
    level: str = "info", log_format: Literal["auto", "console", "json"] = "auto", stream: TextIO | None = None
) -> None:
    """Write events to `stream` (default stderr): colored lines on a terminal, one JSON object a line otherwise.

    Exceptions are rendered without the values of local variables, which may hold secrets.
    """
    out = stream or sys.stderr
    forced = _FORCED_LEVELS.get(_verbosity, level)
    is_console = log_format == "console" or (log_format == "auto" and out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if is_console:
        last: list[structlog.typing.Processor] = [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
            )
        ]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dump_json)]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[forced]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=out, format="%(levelname)s %(name)s %(message)s", force=True)


def _dump_json(event: dict[str, object], **_: object) -> str:
    first = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    try:
        return orjson.dumps({**first, **event}, default=str).decode()
    except TypeError:  # a whole number of more than 64 bits, such as a price in wei
        return json.dumps({**first, **event}, default=str)
