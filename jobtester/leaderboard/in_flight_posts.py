"""Run a limited number of posts at once, and let slow ones continue without delaying others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_MAX_LATE = 384  # at 50 posts a second of which one in seven hangs for 30 s: 225
_MAX_LATE_IN_A_ROW = 16  # so many without any answer: it is the server that is slow, not single posts
_SLOWER_FACTOR = 4.0
_MIN_WAIT_S = 0.1
_MAX_WAIT_S = 10.0
_SILENT_S = 5.0  # with the breaker's longest pause less than the ten seconds within which delivery begins again
_NEWEST_WEIGHT = 1 / 8


@dataclass(slots=True)
class InFlightPosts:
    """Run posts; one that takes far longer than usual goes on by itself, and its slot goes to the next.

    A server that is slow as a whole is not flooded: the usual time grows with its answers, and without any answer only
    a few step aside. Then, and for a probe, `on_silence` is called with the seconds waited; what it was silent about
    goes on, and its answer counts when it comes. `on_late_answer` is called after each that had stepped aside.
    """

    on_late_answer: Callable[[], None]
    on_silence: Callable[[float], None]
    monotonic: Callable[[], float] = time.monotonic
    silent_s: float = _SILENT_S
    _late: set[asyncio.Task[None]] = field(default_factory=set)
    _usual_s: float = _MIN_WAIT_S
    _late_in_a_row: int = 0

    async def run(self, posts: Iterable[Coroutine[Any, Any, None]], parallel: int, *, is_probe: bool = False) -> None:
        """Run posts in order, `parallel` at a time. Return when each has ended or stepped aside."""
        waiting = iter(posts)
        await asyncio.gather(*(self._run_in_slot(waiting, is_probe) for _ in range(parallel)))

    @property
    def late_count(self) -> int:
        """Return how many have stepped aside and go on."""
        return len(self._late)

    async def finish(self, within_s: float | None = None) -> None:
        """Wait for those that have stepped aside; cancel what has not ended within `within_s` seconds."""
        if self._late:
            _, unfinished = await asyncio.wait(self._late, timeout=within_s)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def _run_in_slot(self, waiting: Iterator[Coroutine[Any, Any, None]], is_probe: bool) -> None:
        """Run one post after the other, as one of the `parallel` slots."""
        for post in waiting:
            task = asyncio.create_task(self._run_timed(post))
            try:
                wait_s = min(_MAX_WAIT_S, max(_MIN_WAIT_S, _SLOWER_FACTOR * self._usual_s))
                silent_s = max(wait_s, self.silent_s)
                if not is_probe:
                    await asyncio.wait({task}, timeout=wait_s)
                    if not task.done() and not self._is_silent and len(self._late) < _MAX_LATE:
                        self._late_in_a_row += 1
                        self._step_aside(task)
                        continue
                await asyncio.wait({task}, timeout=silent_s if is_probe else silent_s - wait_s)
                if not task.done() and (is_probe or self._is_silent):
                    self._step_aside(task)
                    self.on_silence(silent_s)
                    continue
                await task
            except asyncio.CancelledError:
                task.cancel()
                raise

    @property
    def _is_silent(self) -> bool:
        return self._late_in_a_row >= _MAX_LATE_IN_A_ROW

    def _step_aside(self, task: asyncio.Task[None]) -> None:
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        task.add_done_callback(lambda _: self.on_late_answer())

    async def _run_timed(self, post: Coroutine[Any, Any, None]) -> None:
        began = self.monotonic()
        await post
        duration_s = self.monotonic() - began
        if duration_s < _MAX_WAIT_S:  # a longer one says nothing about the usual time
            self._usual_s += (duration_s - self._usual_s) * _NEWEST_WEIGHT
            self._late_in_a_row = 0
