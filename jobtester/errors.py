"""The errors people may see: one base, and the docstring of each class is its message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import structlog


class JobTesterError(Exception):
    """Something is wrong with the tester."""

    exit_code = 1

    def __init__(self, detail: str = "") -> None:
        """Say what is wrong; without a detail the class's docstring is the message."""
        super().__init__(detail or (type(self).__doc__ or "").strip())


class ConfigError(JobTesterError):
    """The configuration is not usable."""

    exit_code = 2
    problems: tuple[str, ...] = ()

    @classmethod
    def from_problems(cls, heading: str, problems: Sequence[str]) -> Self:
        """Return an error that names every problem in a line of its own."""
        error = cls(f"{heading}:\n" + "\n".join(f"  {line}" for line in problems))
        error.problems = tuple(problems)
        return error


class UsageError(JobTesterError):
    """The command was not given what it needs; see --help."""

    exit_code = 2


class AssetError(ConfigError):
    """A test input is missing or damaged; orchestrators would be blamed for it."""


class PortInUseError(ConfigError):
    """The port is taken by another program; change server.port."""


class DiscoveryError(JobTesterError):
    """The gateway did not tell which orchestrators there are."""


class GatewayError(JobTesterError):
    """The gateway cannot be used."""


class LeaderboardError(JobTesterError):
    """The Leaderboard cannot be used."""


class StoreError(JobTesterError):
    """The result store cannot be used."""


class DiskFullError(StoreError):
    """The disk of the result store is full."""


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
    """Return True if somebody has canceled the running task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop has no task
        return False
    return task is not None and task.cancelling() > 0
