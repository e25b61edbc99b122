"""Run the daemon's components: name the one that crashes, retry on store errors, handle signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from jobtester.crash_boundary import CrashBoundary
from jobtester.errors import JobTesterError, StoreError

log = structlog.get_logger()

_STORE_RETRY_S = 2.0


async def run_component(name: str, component: Coroutine[Any, Any, None], running: dict[str, bool]) -> None:
    """Run a component; `running[name]` is True while it runs. Raises JobTesterError that names it if it crashes."""
    running[name] = True
    try:
        await component
    except (asyncio.CancelledError, JobTesterError):
        raise
    except Exception as error:
        log.exception("component_crashed", component=name)
        raise JobTesterError(
            f"the component {name} crashed ({type(error).__name__}: {error}); the log has the traceback"
        ) from error
    finally:
        running[name] = False


async def retry_on_store_error(name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a component again whenever the store fails it, e.g. because the disk is full; each problem is logged once."""
    logged = ""
    while True:
        try:
            return await run()
        except StoreError as error:
            if logged != str(error):
                logged = str(error)
                log.error("component_blocked", component=name, problem=logged)
            await asyncio.sleep(_STORE_RETRY_S)


def report_loop_errors(crashes: CrashBoundary) -> Callable[[], None]:
    """Log and count what callbacks and unawaited tasks of the running loop raise; return a function that undoes it."""
    loop = asyncio.get_running_loop()
    previous_handler = loop.get_exception_handler()

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Exception):
            log.warning("loop_warning", problem=context.get("message", ""))
            return
        with crashes.unit("loop", problem=context.get("message", "")):
            raise error

    loop.set_exception_handler(report)
    return lambda: loop.set_exception_handler(previous_handler)


class Signals:
    """Sets `stop_requested` at SIGTERM or SIGINT; a second one ends the process. SIGHUP calls `reload`."""

    def __init__(self, stop_requested: asyncio.Event, reload: Callable[[], None] | None = None) -> None:
        self._stop_requested = stop_requested
        self._reload = reload

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._request_stop, number)
        if self._reload is not None:
            loop.add_signal_handler(signal.SIGHUP, self._reload)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if self._reload is not None:
            loop.remove_signal_handler(signal.SIGHUP)

    def _request_stop(self, number: signal.Signals) -> None:
        if self._stop_requested.is_set():
            # By the default action, so that the parent process sees by which signal it ended.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._stop_requested.set()
