"""The errors that people may see, and the boundary that contains a crash of one unit of work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self


class JobTesterError(Exception):
    """Something is wrong with the tester."""

    # The docstring of each class is its message where none is given.

    exit_code = 1

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or (type(self).__doc__ or "").strip())


class ConfigError(JobTesterError):
    """The configuration is not usable."""

    exit_code = 2

    def __init__(self, detail: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.problems = tuple(problems)

    @classmethod
    def from_problems(cls, heading: str, problems: Sequence[str]) -> Self:
        """Return an error whose message has a line for each problem."""
        return cls(f"{heading}:\n" + "\n".join(f"  {line}" for line in problems), problems)


class UsageError(JobTesterError):
    """The command lacks something that it needs; see --help."""

    exit_code = 2


class AssetError(ConfigError):
    """A test input is missing or damaged; orchestrators would be blamed for it."""


class PortInUseError(ConfigError):
    """The port is taken by another program; change server.port."""


class DiscoveryError(JobTesterError):
    """The gateway did not list its orchestrators."""


class GatewayError(JobTesterError):
    """The gateway cannot be used."""


class GatewayRefusedError(GatewayError):
    """The gateway takes no connection, so that nothing was sent to it."""


class LeaderboardError(JobTesterError):
    """The Leaderboard cannot be used."""


class StoreError(JobTesterError):
    """The result store cannot be used."""


class DiskFullError(StoreError):
    """The disk of the result store is full."""


COMPONENTS = (
    "cleanup", "clock", "delivery", "event", "job", "lookup", "loop", "notification", "post", "probe", "reload",
    "request", "store", "tick", "video",
)  # fmt: skip


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
        # Imported only here: loading it takes longer than all that `--help` and completion in shells need.
        import structlog

        structlog.get_logger().exception(f"{component}_crashed", **keys)


def _is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop has no task
        return False
    return task is not None and task.cancelling() > 0
