"""The errors people may see: one base, and the docstring of each class is its message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self


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
    def of(cls, heading: str, problems: Sequence[str]) -> Self:
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
