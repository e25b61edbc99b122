"""Waiting until a condition holds that nothing announces."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

TIMEOUT_S = 60.0

T = TypeVar("T")


async def until(
    condition: Callable[[], Any],
    what: str = "the condition",
    *,
    timeout_s: float = TIMEOUT_S,
    pause_s: float = 0.01,
) -> Any:
    """Evaluate a condition, plain or asynchronous, until its value is true; return that value.

    Raises AssertionError with `what` if it does not hold in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await asyncio.wait_for(value, max(0.1, deadline - time.monotonic()))
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(pause_s)


def block_until(
    condition: Callable[[], T], what: str = "the condition", *, timeout_s: float = TIMEOUT_S, pause_s: float = 0.05
) -> T:
    """Evaluate a condition until its value is true, as `until` does, in a test without an event loop."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(pause_s)
    return value
