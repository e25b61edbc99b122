"""Tasks that outlive the request that started them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundTasks:
    """The running tasks of a server; asyncio itself keeps only weak references to them."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work` as a task and keep it until it ends."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def cancel_all(self) -> None:
        """Cancel every running task and wait until all have ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def run_unless_set(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Run `work` and return its result; cancel it and return None if the event is set first."""
    task, event_task = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, event_task}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        event_task.cancel()
        await asyncio.gather(task, event_task, return_exceptions=True)


async def run_beside(main: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, Any]) -> T:
    """Run `main` and return its result; `others` run beside it and are canceled at its end.

    If any of them raises, the rest is canceled and the exception goes on.
    """
    main_task = asyncio.create_task(main)
    tasks: list[asyncio.Task[Any]] = [main_task, *(asyncio.create_task(work) for work in others)]
    pending = set(tasks)
    try:
        while not main_task.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return main_task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
