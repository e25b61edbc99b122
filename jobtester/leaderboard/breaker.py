"""The breaker: how long to leave a failing Leaderboard alone. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

_LONGEST_ASKED_S = 3600.0


@dataclass(slots=True)
class Breaker:
    """Opens at a failure for a growing, jittered time; then one probe goes out, and if that succeeds, the backlog.

    Times in seconds on the caller's clock.
    """

    first_s: float = 1.0
    most_s: float = 120.0
    random: random.Random = field(default_factory=random.Random)
    failures: int = 0
    shut_until: float = float("-inf")

    def may_send(self, now: float, most: int) -> int:
        """Say how many posts may go out now: none, one probe, or as many as there may be."""
        if now < self.shut_until:
            return 0
        return 1 if self.failures else most

    def succeeded(self) -> bool:
        """Note a success; tell whether it ends a failure."""
        recovered, self.failures = self.failures > 0, 0
        self.shut_until = float("-inf")
        return recovered

    def failed(self, now: float, retry_after_s: float | None = None) -> bool:
        """Note a failure; tell whether it is the first of its row. Those of posts sent together count as one."""
        fresh, pause = now >= self.shut_until, 0.0
        if fresh:
            self.failures += 1
            pause = min(self.most_s, self.first_s * 2 ** min(self.failures - 1, 16))
            pause *= 0.5 + self.random.random() / 2
        if retry_after_s is not None:
            pause = max(pause, min(retry_after_s, _LONGEST_ASKED_S))
        self.shut_until = max(self.shut_until, now + pause)
        return fresh and self.failures == 1
