"""Crashes: the boundary at which an unexpected error ends one unit of work, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

COMPONENTS = ("event", "job", "lookup", "post", "probe", "reload", "request", "tick")


@dataclass(slots=True)
class Crash:
    """What a unit of work ended with: `error` is None if it went well."""

    error: Exception | None = None

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

        `where` becomes keys of the log event `<component>_crashed`.
        """
        crash = Crash()
        try:
            yield crash
        except expected:
            raise
        except Exception as error:
            crash.error = error
            self.count(component)
            log.exception(f"{component}_crashed", **where)
