"""An exchange shows how the gateway ended the job, whatever the answer is worth."""

from __future__ import annotations

import pytest

from jobtester.domain.exchanges import Ending, Exchange


def make_exchange(ending: Ending = Ending.ANSWERED, status: int | None = None, body: bytes = b"") -> Exchange:
    """Return an exchange of two seconds."""
    return Exchange(ending, 1.7e9, 10.0, 12.0, status, body)


@pytest.mark.parametrize(
    ("exchange", "reports_success", "tries_exhausted", "may_continue"),
    [
        (make_exchange(status=200, body=b"{}"), True, False, False),
        (make_exchange(status=202, body=b"x" * 100), True, False, False),
        (make_exchange(status=200, body=b" null\n"), False, True, False),
        (make_exchange(status=200, body=b" "), False, False, False),
        (make_exchange(status=503, body=b"x"), False, True, False),
        (make_exchange(status=400, body=b"x"), False, False, False),
        (make_exchange(status=502), False, False, True),
        (make_exchange(status=504), False, False, True),
        (make_exchange(Ending.NO_REPLY), False, True, False),
        (make_exchange(Ending.REFUSED), False, False, False),
        (make_exchange(Ending.WITHDRAWN), False, False, False),
        (make_exchange(Ending.TIMEOUT), False, False, True),
        (make_exchange(Ending.TOO_LARGE, 200), False, False, True),
        (make_exchange(Ending.CUT_SHORT, 200, b"{}"), False, False, True),
        (make_exchange(Ending.ABORTED), False, False, True),
    ],
)
def test_how_the_gateway_ended_it(
    exchange: Exchange, reports_success: bool, tries_exhausted: bool, may_continue: bool
) -> None:
    """Success, exhausted tries and work that may go on are distinguished by ending, status and body."""
    assert exchange.gateway_reports_success == reports_success
    assert exchange.tries_exhausted == tries_exhausted
    assert exchange.gateway_may_continue == may_continue


def test_a_round_trip_is_never_zero() -> None:
    """The Leaderboard divides by it."""
    assert make_exchange().round_trip_s == 2.0
    assert Exchange(Ending.REFUSED, 1.7e9, 10.0, 10.0).round_trip_s > 0
