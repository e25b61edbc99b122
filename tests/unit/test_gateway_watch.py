"""Gateway watch: a job waits as long as one of the gateways that take it may come back, and no longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import LIVE_VIDEO, Capability
from jobtester.gateway.peer import JobPeer
from jobtester.tick.gateway_watch import GatewayWatch


@dataclass
class Peer:
    """A gateway that takes live video only, or everything else."""

    name: str
    takes_streams: bool
    is_down: bool = False
    is_lost: bool = False

    @property
    def is_usable(self) -> bool:
        """Whether it takes jobs now."""
        return not self.is_down and not self.is_lost

    def serves(self, job: Job) -> bool:
        """Return True for the kind of jobs that it takes."""
        return job.capability.is_live_video == self.takes_streams


@dataclass
class AnyJob:
    """As much of a job as the watch looks at."""

    capability: Capability


STREAM = cast("Job", AnyJob(Capability(LIVE_VIDEO, "m", byoc=False, warm=True)))
BATCH = cast("Job", AnyJob(Capability("llm", "m", byoc=False, warm=True)))


def watch(*peers: Peer) -> GatewayWatch:
    """Return a watch that waits 60 s for a gateway."""
    return GatewayWatch([cast("JobPeer", peer) for peer in peers], patience_s=60, pause_s=2)


@pytest.mark.parametrize("is_down", [True, False])
def test_other_gateways_do_not_keep_jobs_waiting_that_they_never_take(is_down: bool) -> None:
    """Streams are skipped once their only gateway is lost; what another gateway takes goes on."""
    streams, batch = Peer("streams", takes_streams=True), Peer("batch", takes_streams=False)
    watching = watch(streams, batch)
    assert not watching.update(0)
    streams.is_down, streams.is_lost = is_down, not is_down
    assert watching.update(1) == (not is_down)
    assert watching.update(61)
    assert watching.find_skip_reason(STREAM) == ("gateway_lost" if is_down else "not_targeted")
    assert watching.find_skip_reason(BATCH) == ""


def test_a_gateway_that_comes_back_is_waited_for_anew() -> None:
    """Its patience begins with each loss, and jobs wait for it as long as it may come back."""
    peer = Peer("g", takes_streams=True, is_down=True)
    watching = watch(peer)
    assert not watching.update(0)
    assert not watching.update(59)
    peer.is_down = False
    assert not watching.update(60)
    assert not watching.is_any_unusable
    peer.is_down = True
    assert not watching.update(70)
    assert watching.find_skip_reason(STREAM) == ""
    assert watching.update(130)
    assert watching.find_skip_reason(STREAM) == "gateway_lost"


def test_jobs_are_looked_at_only_now_and_then_while_nothing_changes() -> None:
    """To look at all jobs at each change would slow a large tick down; requeued ones are found a little later."""
    watching = watch(Peer("g", takes_streams=True, is_lost=True))
    assert watching.update(0)
    assert not watching.update(1)
    assert watching.update(2)


def test_a_job_waits_while_one_of_its_gateways_may_come_back() -> None:
    """Of two gateways for streams, the second is waited for after the first is lost."""
    first, second = Peer("a", takes_streams=True, is_down=True), Peer("b", takes_streams=True)
    watching = watch(first, second)
    watching.update(0)
    watching.update(60)
    assert watching.find_skip_reason(STREAM) == ""
    second.is_lost = True
    assert watching.update(61)
    assert watching.find_skip_reason(STREAM) == "gateway_lost"
