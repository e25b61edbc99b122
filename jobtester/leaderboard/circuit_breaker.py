"""The breaker: how long to leave a failing Leaderboard alone. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

_LONGEST_ASKED_S = 3600.0
_RECENT_S = 1.0
_IN_A_ROW = 8  # with a third of all posts failing by chance, one in 6,561 times


@dataclass(slots=True)
class CircuitBreaker:
    """Stops posts to a Leaderboard that is down for a growing, jittered time; then one probe is sent.

    A failure right after a success says nothing yet: one that fails some of its posts is not down. Only several in a
    row
    are a reason to stop, or one where nothing has succeeded lately. The longest pause is short, so that
    delivery begins again within ten seconds of its coming back.
    Times in seconds on the caller's clock.
    """

    first_s: float = 1.0
    max_s: float = 8.0
    random: random.Random = field(default_factory=random.Random)
    failures: int = 0
    open_until: float = float("-inf")
    in_a_row: int = 0
    succeeded_at: float = float("-inf")

    def allowed_sends(self, now: float, most: int) -> int:
        """Say how many posts may go out now: none, one probe, or as many as there may be."""
        if now < self.open_until:
            return 0
        return 1 if self.failures else most

    def on_success(self, now: float = float("-inf")) -> bool:
        """Note a success; tell whether it ends a failure."""
        self.in_a_row, self.succeeded_at = 0, now
        recovered, self.failures = self.failures > 0, 0
        self.open_until = float("-inf")
        return recovered

    def on_failure(self, now: float, retry_after_s: float | None = None) -> bool:
        """Note a failure; tell whether it is the first of its row. Those of posts sent together count as one."""
        self.in_a_row += 1
        lately = self.failures == 0 and now - self.succeeded_at < _RECENT_S
        if lately and self.in_a_row < _IN_A_ROW and retry_after_s is None:
            return False
        fresh, pause = now >= self.open_until, 0.0
        if fresh:
            self.failures += 1
            pause = min(self.max_s, self.first_s * 2 ** min(self.failures - 1, 16))
            pause *= 0.5 + self.random.random() / 2
        if retry_after_s is not None:
            pause = max(pause, min(retry_after_s, _LONGEST_ASKED_S))
        self.open_until = max(self.open_until, now + pause)
        return fresh and self.failures == 1
