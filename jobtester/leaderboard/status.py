"""Track the state of the Leaderboard: what is wrong with it, and whether a post may go out now."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog

from jobtester.leaderboard.client import PostAnswer

log = structlog.get_logger()

_MAX_RETRY_AFTER_S = 3600.0
_RECENT_S = 1.0
_MAX_IN_A_ROW = 8  # with a third of all posts failing by chance, one in 6,561 times


@dataclass(slots=True)
class CircuitBreaker:
    """Stop posts to a failing Leaderboard for a growing, jittered time; then let one probe through.

    Closed, posts flow; open, none does. The longest pause and the time for which a probe may be silent are short, so
    that delivery begins again within ten seconds of the Leaderboard's recovery. Times in seconds on the caller's clock.
    """

    first_pause_s: float = 1.0
    max_pause_s: float = 4.0
    random: random.Random = field(default_factory=random.Random)
    pauses: int = 0
    open_until: float = float("-inf")
    opened_at: float = float("-inf")
    failures_in_a_row: int = 0
    succeeded_at: float = float("-inf")

    def allowed_sends(self, now: float, limit: int) -> int:
        """Return how many posts may go out now: none, one probe, or `limit`."""
        if now < self.open_until:
            return 0
        return 1 if self.pauses else limit

    def on_success(self, now: float = float("-inf")) -> bool:
        """Close the breaker; return True if that ends an outage."""
        self.failures_in_a_row, self.succeeded_at = 0, now
        recovered, self.pauses = self.pauses > 0, 0
        self.open_until = float("-inf")
        return recovered

    def on_failure(self, now: float, retry_after_s: float | None = None) -> bool:
        """Count a failure and open the breaker if it is down; return True if an outage begins with it."""
        self.failures_in_a_row += 1
        # A server that fails some of its posts is not down, and stopping for it would cost more than it saves. So a
        # failure right after a success opens nothing, unless several come in a row or the server asks for a pause.
        is_sporadic = self.pauses == 0 and now - self.succeeded_at < _RECENT_S
        if is_sporadic and self.failures_in_a_row < _MAX_IN_A_ROW and retry_after_s is None:
            return False
        # Posts that were sent together fail together: those that find the breaker open already count as one failure.
        is_new, pause_s = now >= self.open_until, 0.0
        if is_new:
            self.pauses, self.opened_at = self.pauses + 1, now
            pause_s = min(self.max_pause_s, self.first_pause_s * 2 ** min(self.pauses - 1, 16))
            pause_s *= 0.5 + self.random.random() / 2  # several testers must not come back at the same instant
        if retry_after_s is not None:
            pause_s = max(pause_s, min(retry_after_s, _MAX_RETRY_AFTER_S))
        self.open_until = max(self.open_until, now + pause_s)
        return is_new and self.pauses == 1


@dataclass(slots=True)
class LeaderboardStatus:
    """What is wrong with the Leaderboard, for readiness, the pages and everything that posts.

    Each problem is logged once when it begins and once when it is over.
    """

    url: str
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    monotonic: Callable[[], float] = time.monotonic
    region: Literal["unknown", "usable", "unusable"] = "unknown"
    region_problem: str = ""
    was_asked: bool = False
    failure: str = ""
    refusal: str = ""
    read_failure: str = ""
    lost: int = 0
    lost_problem: str = ""
    _logged_refusals: set[int | None] = field(default_factory=set)

    @property
    def problem(self) -> str:
        """Return what is wrong, the most serious first; empty if all is well."""
        return self.region_problem or self.failure or self.refusal or self.lost_problem or self.read_failure

    @property
    def is_failing(self) -> bool:
        """Return True during an outage, also while a probe is under way."""
        return self.breaker.pauses > 0

    @property
    def open_for_s(self) -> float:
        """Return for how many seconds nothing may be sent, at least 0."""
        return max(0.0, self.breaker.open_until - self.monotonic())

    def is_news(self, began: float) -> bool:
        """Return True if silence after a request says something new: one that `began` since the last answer or outage.

        `began` is in seconds of the monotonic clock.
        """
        return max(self.breaker.succeeded_at, self.breaker.opened_at) <= began

    def allowed_sends(self, limit: int) -> int:
        """Return how many posts may go out now: none, one probe, or `limit`."""
        return self.breaker.allowed_sends(self.monotonic(), limit)

    def on_failure(self, problem: str, retry_after_s: float | None = None) -> None:
        """Record that it did not answer as it should, which may open the breaker."""
        self.failure, self.was_asked = problem, True
        if self.breaker.on_failure(self.monotonic(), retry_after_s):
            log.error("leaderboard_unavailable", url=self.url, problem=problem)

    def on_silence(self, waited_s: float) -> None:
        """Record that it has answered no post for `waited_s` seconds."""
        self.on_failure(f"no answer from {self.url} for {waited_s:.0f} s")

    def on_answer(self) -> None:
        """Record that it answers."""
        self.failure, self.was_asked = "", True
        if self.breaker.on_success(self.monotonic()):
            log.info("leaderboard_recovered", url=self.url)

    def on_stored(self) -> None:
        """Record that it stored a stat."""
        self.on_answer()
        if self.refusal:
            log.info("stats_accepted", url=self.url)
            self.refusal = ""
            self._logged_refusals.clear()

    def on_refused(self, answer: PostAnswer, result: str) -> None:
        """Record that it refuses a stat for good; log each HTTP status once."""
        self.on_answer()
        if answer.affects_all_stats:
            self.refusal = f"stats are refused: {answer.problem}"
        if answer.status not in self._logged_refusals:
            self._logged_refusals.add(answer.status)
            log.error("stat_refused", url=self.url, result=result, problem=answer.problem)

    def on_region(self, region: str, problem: str) -> None:
        """Record whether our region keeps AI stats; `problem` is empty if it does."""
        self.was_asked = True
        before, self.region = self.region, "unusable" if problem else "usable"
        self.region_problem = problem
        if self.region == before:
            return
        if problem:
            log.error("region_unusable", region=region, url=self.url, problem=problem)
        else:
            log.info("region_confirmed" if before == "unknown" else "region_recovered", region=region, url=self.url)

    def on_stat_lost(self, result: str, problem: str, lost: int) -> None:
        """Record that a stat that was answered `ok` is not stored; `lost` counts all such stats."""
        log.error("stat_lost", url=self.url, result=result, problem=problem)
        self.lost = lost
        self.lost_problem = f"stats answered `ok` but not stored: {lost}; they are posted again; newest: {result}"

    def on_stat_restored(self, lost: int) -> None:
        """Record that a lost stat is stored now; `lost` counts those that still are not."""
        self.lost = lost
        if lost:
            self.lost_problem = f"stats answered `ok` but not stored: {lost}; they are posted again"
        elif self.lost_problem:
            self.lost_problem = ""
            log.info("stats_restored", url=self.url)

    def on_read(self, problem: str) -> None:
        """Record whether stored rows can be read back; `problem` is empty if they can."""
        if problem and not self.read_failure:
            log.warning("stats_unreadable", url=self.url, problem=problem)
        elif self.read_failure and not problem:
            log.info("stats_readable", url=self.url)
        self.read_failure = problem
