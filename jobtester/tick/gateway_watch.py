"""Watch which gateways can be used, and decide which jobs are left without any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jobtester.domain.jobs import Job
from jobtester.gateway.peer import JobPeer


@dataclass(slots=True)
class GatewayWatch:
    """Follows the gateways of one tick; times are the caller's seconds.

    A gateway that is down may come back within `patience_s`; one that selects orchestrators itself is lost at once.
    Not every gateway takes every job: live video waits for those alone that may have a stream.
    """

    gateways: Sequence[JobPeer]
    patience_s: float
    pause_s: float
    _unusable_since: dict[str, float] = field(default_factory=dict)
    _lost: frozenset[str] = frozenset()
    _decided_at: float = 0.0

    @property
    def is_any_unusable(self) -> bool:
        """Return True if a gateway was unusable at the last update."""
        return bool(self._unusable_since)

    def update(self, now: float) -> bool:
        """Look at every gateway; return True if jobs may have to be skipped now."""
        for gateway in self.gateways:
            if gateway.is_usable:
                self._unusable_since.pop(gateway.name, None)
            else:
                self._unusable_since.setdefault(gateway.name, now)
        lost = frozenset(gateway.name for gateway in self.gateways if self._is_lost(gateway, now))
        # Jobs may also be requeued later. To look at all of them at each change would slow a large tick down.
        is_due = bool(lost) and (lost != self._lost or now - self._decided_at >= self.pause_s)
        self._lost = lost
        if is_due:
            self._decided_at = now
        return is_due

    def find_skip_reason(self, job: Job) -> str:
        """Return why no gateway will take a job in this tick any more; empty if one may."""
        if job.capability.runner is not None:
            return ""
        serving = [gateway for gateway in self.gateways if gateway.serves(job)]
        if any(gateway.name not in self._lost for gateway in serving):
            return ""
        return "gateway_lost" if any(gateway.is_down for gateway in serving) else "not_targeted"

    def is_skipped(self, reason: str, job: Job) -> bool:
        """Return True if a job is to be skipped for this reason."""
        return self.find_skip_reason(job) == reason

    def _is_lost(self, gateway: JobPeer, now: float) -> bool:
        since = self._unusable_since.get(gateway.name)
        return since is not None and (not gateway.is_down or now - since >= self.patience_s)
