"""A failure is held against an orchestrator only if the job reached it, or if nobody can reach it."""

from __future__ import annotations

import pytest

from jobtester.domain.attempts import AttemptPattern, Attempts, Connection, ConnectionState
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.judgement import judge

UNAVAILABLE = Exchange(Ending.ANSWERED, 1.7e9, 1, 2, 503, b'{"error":{"message":"Service Unavailable Error"}}')
TIMEOUT = Exchange(Ending.TIMEOUT, 1.7e9, 1, 61, detail="no complete answer within 60 s")
PRESUMED = Attribution(AttributionKind.PRESUMED)
REACHABLE, UNREACHABLE, UNKNOWN = ConnectionState.REACHABLE, ConnectionState.UNREACHABLE, ConnectionState.UNKNOWN


@pytest.mark.parametrize(
    ("pattern", "state", "code"),
    [
        (AttemptPattern.REACHED, None, "503"),
        (AttemptPattern.REACHED, REACHABLE, "503"),
        (AttemptPattern.REACHED, UNREACHABLE, "unreachable"),
        (AttemptPattern.BUSY, None, "busy"),
        (AttemptPattern.BUSY, UNREACHABLE, "busy"),
        (AttemptPattern.NOT_FOLLOWING, None, "not_targeted"),
        (AttemptPattern.NOBODY, None, "unclear"),
        (AttemptPattern.NOBODY, REACHABLE, "not_selected"),
        (AttemptPattern.NOBODY, UNREACHABLE, "unreachable"),
        (AttemptPattern.NOBODY, UNKNOWN, "unclear"),
        (AttemptPattern.DOWN, REACHABLE, "not_selected"),
        (AttemptPattern.DOWN, UNREACHABLE, "unreachable"),
        (AttemptPattern.UNCLEAR, REACHABLE, "unclear"),
        (AttemptPattern.UNCLEAR, UNREACHABLE, "unreachable"),
    ],
)
def test_what_exhausted_tries_come_to(pattern: AttemptPattern, state: ConnectionState | None, code: str) -> None:
    """Proof that the orchestrator was asked outweighs every doubt."""
    connection = None if state is None else Connection(state, "a connection was tried")
    attempts = Attempts(pattern, 1, "two calls", connection)
    verdict = judge(UNAVAILABLE, (), PRESUMED, attempts=attempts)
    assert verdict.code == code
    if state is UNREACHABLE and code == "unreachable":
        assert "A connection was tried." in verdict.message
    assert judge(UNAVAILABLE, (), Attribution(AttributionKind.PROVEN), attempts=attempts).code == "503"


def test_a_timeout_counts_unless_no_attempt_ever_left() -> None:
    """An orchestrator that was never asked cannot have been slow."""
    assert judge(TIMEOUT, (), PRESUMED, attempts=Attempts(AttemptPattern.REACHED, 1)).code == "timeout"
    assert judge(TIMEOUT, (), PRESUMED, attempts=Attempts(AttemptPattern.UNCLEAR)).code == "timeout"
    assert judge(TIMEOUT, (), PRESUMED, attempts=Attempts(AttemptPattern.DOWN)).code == "unclear"
