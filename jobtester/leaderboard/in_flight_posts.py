"""Posts in flight: a few at a time, and those without an answer step aside, so that they hold up no others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_MOST_ASIDE = 384  # at 50 posts a second of which one in seven hangs for 30 s: 225
_ASIDE_IN_A_ROW = 16  # so many without any answer: it is the server that is slow, not single posts
_SLOWER = 4.0
_SHORTEST_S = 0.1
_LONGEST_S = 10.0
_WEIGHT = 1 / 8  # of the newest answer in the usual time


@dataclass(slots=True)
class InFlightPosts:
    """Runs posts; one that takes far longer than usual goes on by itself, and its slot goes to the next.

    A server that is slow as a whole is not flooded: the usual time grows with its answers, and without any answer only
    a few step aside. Times in seconds.
    """

    on_late: Callable[[], None]
    monotonic: Callable[[], float] = time.monotonic
    _aside: set[asyncio.Task[None]] = field(default_factory=set)
    _usual_s: float = _SHORTEST_S
    _in_a_row: int = 0

    async def run(self, posts: Iterable[Coroutine[Any, Any, None]], parallel: int) -> None:
        """Run posts in order, `parallel` at a time. Return when each has ended or stepped aside."""
        waiting = iter(posts)
        await asyncio.gather(*(self._run_some(waiting) for _ in range(parallel)))

    @property
    def late_count(self) -> int:
        """Return how many have stepped aside and go on."""
        return len(self._aside)

    async def finish(self, within_s: float | None = None) -> None:
        """Wait for those that have stepped aside; cancel what has not ended within `within_s` seconds."""
        if self._aside:
            _, late = await asyncio.wait(self._aside, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run_some(self, waiting: Iterator[Coroutine[Any, Any, None]]) -> None:
        for post in waiting:
            task = asyncio.create_task(self._timed(post))
            try:
                await asyncio.wait({task}, timeout=min(_LONGEST_S, max(_SHORTEST_S, _SLOWER * self._usual_s)))
                if not task.done() and self._in_a_row < _ASIDE_IN_A_ROW and len(self._aside) < _MOST_ASIDE:
                    self._in_a_row += 1
                    self._aside.add(task)
                    task.add_done_callback(self._came_late)
                    continue
                await task
            except asyncio.CancelledError:
                task.cancel()
                raise

    async def _timed(self, post: Coroutine[Any, Any, None]) -> None:
        began = self.monotonic()
        await post
        took_s = self.monotonic() - began
        if took_s < _LONGEST_S:  # longer says nothing about the usual
            self._usual_s += (took_s - self._usual_s) * _WEIGHT
            self._in_a_row = 0

    def _came_late(self, task: asyncio.Task[None]) -> None:
        self._aside.discard(task)
        self.on_late()
