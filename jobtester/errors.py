"""The errors that people may see."""

from __future__ import annotations

from collections.abc import Sequence
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
