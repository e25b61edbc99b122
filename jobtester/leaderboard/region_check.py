"""The gate before posting: a stat to a region that keeps no AI stats would be dropped without a word."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from jobtester.errors import LeaderboardError
from jobtester.leaderboard.client import LeaderboardClient
from jobtester.leaderboard.status import LeaderboardStatus

log = structlog.get_logger()

_WRONG_AGAIN_S = 60.0
_GOOD_FOR_S = 300.0
_STALE_S = 60.0


@dataclass(slots=True)
class RegionCheck:
    """Knows the regions: asked for before anything is posted, now and then, and whenever there is doubt."""

    client: LeaderboardClient
    region: str
    status: LeaderboardStatus
    monotonic: Callable[[], float] = time.monotonic
    _known: Mapping[str, set[str]] = field(default_factory=dict)
    _asked_at: float = float("-inf")

    @property
    def retry_in_s(self) -> float:
        """Give after how many seconds a wrong region is looked for again, 0 if it is not wrong."""
        if self.status.region != "wrong":
            return 0.0
        return max(0.0, self._asked_at + _WRONG_AGAIN_S - self.monotonic())

    def invalidate(self) -> None:
        """Ask again before the next post."""
        self._asked_at = float("-inf")

    async def is_usable(self, *, afresh: bool = False) -> bool:
        """Tell whether the region keeps AI stats, asking the Leaderboard where that is not known for sure."""
        age = self.monotonic() - self._asked_at
        if self.status.region == "ok" and age < _GOOD_FOR_S and not afresh:
            return True
        if self.retry_in_s or not self.status.allowed_sends(1):
            return False
        try:
            self._known = await self.client.get_regions()
        except LeaderboardError as error:
            self.status.on_failure(str(error))
            return False
        self._asked_at = self.monotonic()
        return self._judge(self._known.get("ai", set()))

    async def accepts(self, region: str, kind: str) -> bool:
        """Tell whether another tester's region keeps stats of this kind; a region that is new is asked for again."""
        if region not in self._known.get(kind, ()) and self.monotonic() - self._asked_at > _STALE_S:
            await self.is_usable(afresh=True)
        return region in self._known.get(kind, ())

    def is_known_missing(self, region: str) -> bool:
        """Tell whether the Leaderboard surely refuses a region by its name, going by what it said within a minute."""
        fresh = self.monotonic() - self._asked_at <= _STALE_S
        return fresh and not any(region in names for names in self._known.values())

    def error_message(self, known: Iterable[str]) -> str:
        """Say what is wrong with the region."""
        names = ", ".join(sorted(known)) or "none"
        return (
            f"region: {self.region!r} keeps no AI stats at {self.client.url} (it knows {names}); "
            "nothing is posted, results are kept"
        )

    def _judge(self, known: set[str]) -> bool:
        """Take in what was answered; an answer also ends a failure."""
        standing, before = self.status, self.status.region
        standing.was_asked = True
        if self.region in known:
            standing.region, standing.region_problem = "ok", ""
            if before != "ok":
                log.info("region_ok", region=self.region, url=self.client.url)
            return True
        standing.region, standing.region_problem = "wrong", self.error_message(known)
        if before != "wrong":
            log.error("region_wrong", region=self.region, url=self.client.url, problem=standing.region_problem)
        return False
