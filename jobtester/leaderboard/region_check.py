"""Check that the Leaderboard keeps AI stats for a region before anything is posted to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from jobtester.errors import LeaderboardError
from jobtester.leaderboard.client import LeaderboardClient
from jobtester.leaderboard.options import OptionsHolder
from jobtester.leaderboard.status import LeaderboardStatus

_RECHECK_UNUSABLE_S = 60.0
_VALID_FOR_S = 300.0
_STALE_S = 60.0
_ANSWER_WITHIN_S = 5.0  # the server answers from its memory, and an outage is over only when it has answered


@dataclass(slots=True)
class RegionCheck:
    """Know the Leaderboard's regions.

    A post to a region without an `ai` row is answered `ok` and silently dropped, so nothing is posted before the region
    is known to be usable. It is asked for before the first post, every five minutes, and whenever there is doubt.
    """

    client: LeaderboardClient
    options: OptionsHolder
    status: LeaderboardStatus
    monotonic: Callable[[], float] = time.monotonic
    _regions: Mapping[str, set[str]] = field(default_factory=dict)
    _asked_at: float = float("-inf")

    @property
    def retry_in_s(self) -> float:
        """Return in how many seconds an unusable region is asked for again, 0 if it is not unusable."""
        if self.status.region != "unusable":
            return 0.0
        return max(0.0, self._asked_at + _RECHECK_UNUSABLE_S - self.monotonic())

    def invalidate(self) -> None:
        """Ask again before the next post."""
        self._asked_at = float("-inf")

    async def is_usable(self, *, refresh: bool = False) -> bool:
        """Return True if our region keeps AI stats; ask the Leaderboard if `refresh` or the last answer is too old."""
        age_s = self.monotonic() - self._asked_at
        if self.status.region == "usable" and age_s < _VALID_FOR_S and not refresh:
            return True
        if self.retry_in_s or not self.status.allowed_sends(1):
            return False
        try:
            self._regions = await self.client.get_regions(timeout_s=_ANSWER_WITHIN_S)
        except LeaderboardError as error:
            self.status.on_failure(str(error))
            return False
        self._asked_at = self.monotonic()
        region, ai_regions = self.options.current.region, self._regions.get("ai", set())
        problem = "" if region in ai_regions else self.error_message(ai_regions)
        # An answer is not a stored stat: it closes no breaker, since the database may be down behind it.
        self.status.on_region(region, problem)
        return not problem

    async def accepts(self, region: str, kind: str) -> bool:
        """Return True if another tester's region keeps stats of this kind; ask again for a region that is new."""
        if region not in self._regions.get(kind, ()) and self.monotonic() - self._asked_at > _STALE_S:
            await self.is_usable(refresh=True)
        return region in self._regions.get(kind, ())

    def is_known_missing(self, region: str) -> bool:
        """Return True if an answer of the last minute shows that the Leaderboard refuses the region by its name."""
        is_recent = self.monotonic() - self._asked_at <= _STALE_S
        return is_recent and not any(region in names for names in self._regions.values())

    def error_message(self, ai_regions: Iterable[str]) -> str:
        """Return what is wrong with our region, for people."""
        names = ", ".join(sorted(ai_regions)) or "none"
        return (
            f"region: {self.options.current.region!r} keeps no AI stats at {self.client.url} (it knows {names}); "
            "nothing is posted, results are kept"
        )
