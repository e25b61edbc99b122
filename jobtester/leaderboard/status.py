"""The standing of the Leaderboard: what is wrong with it, said once when it begins and once when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog

from jobtester.leaderboard.answers import PostAnswer
from jobtester.leaderboard.circuit_breaker import CircuitBreaker

log = structlog.get_logger()


@dataclass(slots=True)
class LeaderboardStatus:
    """How the Leaderboard stands, for readiness and for whoever wants to post; `last_stored_at` in Unix seconds."""

    url: str
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    monotonic: Callable[[], float] = time.monotonic
    region: Literal["unknown", "ok", "wrong"] = "unknown"
    region_problem: str = ""
    was_asked: bool = False
    failure: str = ""
    refusal: str = ""
    unreadable: str = ""
    lost: int = 0
    lost_problem: str = ""
    last_stored_at: float | None = None
    _announced: set[str] = field(default_factory=set)

    @property
    def problem(self) -> str:
        """Give what is wrong, the most serious first; empty if all is well."""
        return self.region_problem or self.failure or self.refusal or self.lost_problem or self.unreadable

    @property
    def open_for_s(self) -> float:
        """Give for how many seconds nothing may be sent, at least 0."""
        return max(0.0, self.breaker.open_until - self.monotonic())

    def allowed_sends(self, most: int) -> int:
        """Say how many posts may go out now: none, one probe, or `most`."""
        return self.breaker.allowed_sends(self.monotonic(), most)

    def on_failure(self, problem: str, retry_after_s: float | None = None) -> None:
        """Note that it did not answer as it should, and leave it alone for a while."""
        self.failure, self.was_asked = problem, True
        if self.breaker.on_failure(self.monotonic(), retry_after_s):
            log.error("leaderboard_failing", url=self.url, problem=problem)

    def on_answer(self) -> None:
        """Note that it answers."""
        self.failure, self.was_asked = "", True
        if self.breaker.on_success(self.monotonic()):
            log.info("leaderboard_back", url=self.url)

    def on_stored(self, now: float) -> None:
        """Note that it took a stat."""
        self.on_answer()
        self.last_stored_at = now
        if self.refusal:
            log.info("stats_accepted_again", url=self.url)
            self.refusal = ""
            self._announced.clear()

    def on_refused(self, answer: PostAnswer, result: str) -> None:
        """Note that it refuses a stat for good; said once for each kind."""
        self.on_answer()
        if answer.affects_all_stats:
            self.refusal = f"stats are refused: {answer.problem}"
        kind = str(answer.status)
        if kind not in self._announced:
            self._announced.add(kind)
            log.error("stat_refused", url=self.url, result=result, problem=answer.problem)

    def on_stat_lost(self, result: str, problem: str, lost: int) -> None:
        """Record that a stat which was answered `ok` is not there, as one of `lost` that are not."""
        log.error("stat_lost", url=self.url, result=result, problem=problem)
        self.lost = lost
        self.lost_problem = (
            f"{lost} stats that were answered `ok` are not stored and are posted again; newest: {result}"
        )

    def on_stats_restored(self, lost: int) -> None:
        """Record that a lost stat is stored now, and that `lost` are still not."""
        self.lost = lost
        if lost:
            self.lost_problem = f"{lost} stats that were answered `ok` are not stored and are posted again"
        elif self.lost_problem:
            self.lost_problem = ""
            log.info("stats_restored", url=self.url)

    def on_read_back(self, problem: str) -> None:
        """Note whether rows can be read back; empty if they can."""
        if problem and not self.unreadable:
            log.warning("stats_unreadable", url=self.url, problem=problem)
        elif self.unreadable and not problem:
            log.info("stats_readable_again", url=self.url)
        self.unreadable = problem
