"""Crashes: the boundary at which an unexpected error ends one unit of work, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

COMPONENTS = (
    "cleanup", "clock", "delivery", "event", "job", "lookup", "loop", "notification", "post", "probe", "reload",
    "request", "store", "tick",
)  # fmt: skip


@dataclass(slots=True)
class Crash:
    """What a unit of work ended with: `error` is None if it went well."""

    error: BaseException | None = None

    @property
    def message(self) -> str:
        """Return one plain sentence about the error, empty if there was none."""
        if self.error is None:
            return ""
        return f"an internal error of the tester ({type(self.error).__name__}); its log has the traceback"


def _ignore(_component: str) -> None:
    """Count nothing."""


@dataclass(frozen=True, slots=True)
class CrashBoundary:
    """Keeps one unit of work from ending the process. `count` is called with the component of each crash."""

    count: Callable[[str], None] = _ignore

    @contextmanager
    def unit(self, component: str, *, expected: tuple[type[Exception], ...] = (), **where: object) -> Iterator[Crash]:
        """Log, count and hold back any exception of the block; cancellation and `expected` pass through.

        A CancelledError that nobody asked for is an error as any other: it comes from a library, or from a task that
        was waited for. `where` becomes keys of the log event `<component>_crashed`.
        """
        crash = Crash()
        try:
            yield crash
        except expected:
            raise
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            self._hold_back(crash, component, error, where)
        except Exception as error:
            self._hold_back(crash, component, error, where)

    def _hold_back(self, crash: Crash, component: str, error: BaseException, where: Mapping[str, object]) -> None:
        crash.error = error
        self.count(component)
        log.exception(f"{component}_crashed", **where)


def _is_cancelled() -> bool:
    """Return True if somebody has cancelled the running task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop has no task
        return False
    return task is not None and task.cancelling() > 0
