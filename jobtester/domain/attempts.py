"""Attempts: how far a gateway came with one job, as its webhook calls and the tester's own connection show it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AttemptPattern(StrEnum):
    """How far a gateway's attempts at a job came."""

    ANSWERED = "answered"  # the named orchestrator was asked, and the gateway passed an answer on
    REACHED = "reached"  # at least one attempt left for the orchestrator and failed there
    BUSY = "busy"  # every attempt was refused for want of a free slot
    NOBODY = "nobody"  # attempt after attempt found no orchestrator to select
    DOWN = "down"  # the gateway waited for the orchestrator, which never answered its discovery
    NOT_FOLLOWING = "not_following"  # the gateway did not ask which orchestrator to use
    UNCLEAR = "unclear"  # the calls fit several of these, or none


class ConnectionState(StrEnum):
    """What came of the tester's own connection to a service URI."""

    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"  # refused or silent, twice, while other orchestrators answered
    UNKNOWN = "unknown"  # the tester's own network may be at fault


@dataclass(frozen=True, slots=True)
class Connection:
    """A state, and a sentence for people that says what was tried."""

    state: ConnectionState
    summary: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """A pattern, how many attempts left for the orchestrator (`tries` ≥ 0), and a sentence for people.

    `connection` is what the tester's own connection to the service URI showed, None before there was one.
    """

    pattern: AttemptPattern
    tries: int = 0
    summary: str = ""
    connection: Connection | None = None

    @property
    def never_reached(self) -> bool:
        """Return True if no attempt ever left for the orchestrator."""
        return self.pattern in (AttemptPattern.NOBODY, AttemptPattern.DOWN)


UNKNOWN_ATTEMPTS = Attempts(AttemptPattern.UNCLEAR)
