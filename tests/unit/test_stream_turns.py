"""Streams to one orchestrator wait for each other, and what is remembered of orchestrators does not grow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from jobtester.domain.orchestrators import Target
from jobtester.live_video.listener import CallbackListener
from jobtester.live_video.streams import LiveVideo
from jobtester.settings.live_sections import LiveVideoSettings


@dataclass
class Clock:
    """A clock that stands still until it is set."""

    now: float = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def test_orchestrators_that_come_and_go_are_forgotten() -> None:
    """An orchestrator with a new service URI in every tick cannot make the tester remember ever more."""
    clock = Clock()
    live_video = LiveVideo(LiveVideoSettings(spacing="1s", pool_refresh="1m"), CallbackListener("127.0.0.1", 0), clock)
    for number in range(1_000):
        clock.now += 10
        target = Target(f"0x{number:040x}", f"https://node-{number}.example:8935")
        async with live_video.take_turn(target):
            live_video.on_failed("gateway", target)
        assert live_video.seconds_since_failure("gateway", target) == 0
    assert len(live_video._failed_at) <= 6
    assert len(live_video._ended_at) <= 1
    assert len(live_video._turns) <= 1


async def test_streams_to_one_orchestrator_wait_for_each_other() -> None:
    """The second stream begins when the first one is over."""
    live_video = LiveVideo(LiveVideoSettings(spacing="0s"), CallbackListener("127.0.0.1", 0))
    target, steps = Target("0x1", "https://node.example:8935"), list[str]()

    async def stream(name: str) -> None:
        async with live_video.take_turn(target):
            steps.append(f"{name} begins")
            await asyncio.sleep(0)
            steps.append(f"{name} ends")

    await asyncio.gather(stream("a"), stream("b"))
    assert steps == ["a begins", "a ends", "b begins", "b ends"]
