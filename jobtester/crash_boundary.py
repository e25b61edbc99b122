"""The boundary that contains a crash of one unit of work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

COMPONENTS = (
    "cleanup", "clock", "delivery", "event", "job", "lookup", "loop", "notification", "post", "probe", "reload",
    "request", "store", "tick", "video",
)  # fmt: skip

log = structlog.get_logger()


@dataclass(slots=True)
class Crash:
    """How a unit of work ended: `error` is None if it went well."""

    error: BaseException | None = None

    @property
    def message(self) -> str:
        """Return one plain sentence about the error, empty if there was none."""
        if self.error is None:
            return ""
        return f"an internal error of the tester ({type(self.error).__name__}); its log has the traceback"


@dataclass(frozen=True, slots=True)
class CrashBoundary:
    """Keeps one unit of work from ending the process. `count` is called with the component of each crash.

    This is the only place that catches every exception: an error of the tester in one job must not cost the others.
    """

    count: Callable[[str], None] | None = None

    @contextmanager
    def unit(self, component: str, *, expected: tuple[type[Exception], ...] = (), **keys: object) -> Iterator[Crash]:
        """Log, count and hold back any exception of the block; cancellation and `expected` pass through.

        `keys` go into the log event `<component>_crashed`.
        """
        crash = Crash()
        try:
            yield crash
        except expected:
            raise
        except asyncio.CancelledError as error:
            # A CancelledError without a request to cancel this task is an error like any other: it comes from a
            # library, or from a task that was waited for.
            if _is_cancelled():
                raise
            self._hold_back(crash, component, error, keys)
        except Exception as error:
            self._hold_back(crash, component, error, keys)

    def _hold_back(self, crash: Crash, component: str, error: BaseException, keys: Mapping[str, object]) -> None:
        crash.error = error
        if self.count is not None:
            self.count(component)
        log.exception(f"{component}_crashed", **keys)


def _is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop has no task
        return False
    return task is not None and task.cancelling() > 0
