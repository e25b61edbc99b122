"""Supervision: the rules by which parts run, fail and are told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from jobtester.errors import CrashBoundary, JobTesterError, StoreError

log = structlog.get_logger()

_AGAIN_S = 2.0


async def run_component(name: str, part: Coroutine[Any, Any, None], running: dict[str, bool]) -> None:
    """Run a part under its name, by which `running` tells whether it runs: if it dies, say which, and let all stop."""
    running[name] = True
    try:
        await part
    except (asyncio.CancelledError, JobTesterError):
        raise
    except Exception as error:
        log.exception("part_died", part=name)
        raise JobTesterError(f"the {name} part died ({type(error).__name__}: {error}); see the log") from error
    finally:
        running[name] = False


async def retry_on_store_error(name: str, part: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a part that goes on where the store fails, e.g. because the disk is full: said once, and tried again."""
    failing = ""
    while True:
        try:
            return await part()
        except StoreError as error:
            if failing != str(error):
                failing = str(error)
                log.error("part_waits", part=name, problem=failing)
            await asyncio.sleep(_AGAIN_S)


def report_loop_errors(crashes: CrashBoundary) -> Callable[[], None]:
    """Log and count what the running loop's callbacks and forgotten tasks raise; return what undoes that."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Exception):
            log.warning("loop_warning", problem=context.get("message", ""))
            return
        with crashes.unit("loop", problem=context.get("message", "")):
            raise error

    loop.set_exception_handler(report)
    return lambda: loop.set_exception_handler(before)


class Signals:
    """SIGTERM and SIGINT ask to stop; a second one ends the process at once. SIGHUP asks to read the file again."""

    def __init__(self, asked: asyncio.Event, again: Callable[[], None] | None = None) -> None:
        """Set `asked` when it is time to stop, and call `again` at SIGHUP."""
        self._asked = asked
        self._again = again

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        if self._again is not None:
            loop.add_signal_handler(signal.SIGHUP, self._again)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if self._again is not None:
            loop.remove_signal_handler(signal.SIGHUP)

    def _signalled(self, number: signal.Signals) -> None:
        if self._asked.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._asked.set()
