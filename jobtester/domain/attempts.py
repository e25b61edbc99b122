"""What a gateway's attempts at one job came to, as the tester can tell it without the gateway's own account."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AttemptPattern(StrEnum):
    """How far a gateway's attempts at a job came."""

    ANSWERED = "answered"  # the named orchestrator was asked, and the gateway passed an answer on
    REACHED = "reached"  # at least one attempt left for the orchestrator and failed there
    BUSY = "busy"  # every attempt was refused for want of a free slot
    NOBODY = "nobody"  # attempt after attempt found nobody to select
    DOWN = "down"  # the gateway waited for the orchestrator and never heard of it
    NOT_FOLLOWING = "not_following"  # the gateway did not ask whom to use
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Attempts:
    """A pattern, how many attempts left for the orchestrator (≥ 0), and a sentence for people."""

    pattern: AttemptPattern
    tries: int = 0
    summary: str = ""

    @property
    def never_reached(self) -> bool:
        """Whether no attempt ever left for the orchestrator."""
        return self.pattern in (AttemptPattern.NOBODY, AttemptPattern.DOWN)


UNKNOWN_ATTEMPTS = Attempts(AttemptPattern.UNCLEAR)


class ConnectionState(StrEnum):
    """What the tester found when it connected to a service URI itself."""

    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"  # refused or silent, twice, while other orchestrators answered
    UNKNOWN = "unknown"  # the tester's own network may be at fault


@dataclass(frozen=True, slots=True)
class Connection:
    """A state, and a sentence for people that says what was tried."""

    state: ConnectionState
    summary: str
