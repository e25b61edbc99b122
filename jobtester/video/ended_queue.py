"""A queue for one reader that has an end, which may be an error."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class EndedQueue(Generic[T]):
    """An asynchronous iterator of what is put in; use it on the event loop only.

    After its end it yields what is left, and then stops or raises the error with which it was closed.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self._items: deque[T] = deque()
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    def put(self, item: T) -> None:
        """Append an item."""
        self._items.append(item)
        self._changed.set()

    def close(self, error: Exception | None = None) -> None:
        """End the queue after the items that are left. Only the first end counts."""
        if not self.is_closed:
            self.is_closed = True
            self._error = error
            self._changed.set()

    def clear(self) -> list[T]:
        """Remove the items that are left, and return them."""
        items = list(self._items)
        self._items.clear()
        return items

    def __aiter__(self) -> EndedQueue[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self.is_closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._items.popleft()
