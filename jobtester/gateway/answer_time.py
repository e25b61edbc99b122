"""Read from how long a query gateway took what its attempts at a job came to; it asks no questions. Pure."""

from __future__ import annotations

from jobtester.domain.attempts import UNKNOWN_ATTEMPTS, AttemptPattern, Attempts
from jobtester.domain.exchanges import Ending, Exchange

_SELECTION_S = 3.0  # a gateway waits so long for an orchestrator that does not answer its call
_ABOUT_S = 0.1
_NO_SELECTION_S = 15.0  # no selection takes as long as this


def classify_by_time(exchange: Exchange, retry_window_s: float) -> Attempts:
    """Return what the attempts came to, as far as the time tells: busy is not told from unlisted."""
    if exchange.gateway_reports_success:
        return Attempts(AttemptPattern.ANSWERED, 1, "the gateway passed an answer on")
    if exchange.ending is not Ending.ANSWERED or exchange.status != 503:
        return UNKNOWN_ATTEMPTS
    took = exchange.round_trip_s
    line = f"503 after {took:.1f} s"
    if retry_window_s <= took < _SELECTION_S - _ABOUT_S:
        # Twenty refusals or selections of a distant orchestrator last as long as tries that reach it and fail.
        return Attempts(AttemptPattern.UNCLEAR, 0, f"{line}: the gateway tried until its retry window closed")
    if abs(took - _SELECTION_S) <= _ABOUT_S * 4:
        return Attempts(AttemptPattern.DOWN, 0, f"{line}: as after a call to an orchestrator that does not answer")
    if took >= _NO_SELECTION_S:
        return Attempts(AttemptPattern.REACHED, 1, f"{line}: a selection does not take so long, so the job had left")
    return Attempts(AttemptPattern.UNCLEAR, 0, f"{line}, which says nothing of what happened")
