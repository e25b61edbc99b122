"""Repeat a test of live video that a busy machine spoiled.

On such a machine the tester's own frames are late. It then reports that and judges nothing, which is right but does not
show what the test is about. A run in which the frames were on time has to be exact.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from jobtester.store.results import ResultRow

MAX_RUNS = 5
OWN_FRAMES_LATE = "own frames were late"
RECEIVED_TOO_FEW = "received too few frames"  # as a container reports what the tester sent late


class FramesLateError(Exception):
    """The tester's own frames were late."""


def are_frames_late(row: ResultRow) -> bool:
    """Return True if the tester recorded that its own frames came too late for a judgement."""
    return row.reason == "tester_fault" and any(text in row.message for text in (OWN_FRAMES_LATE, RECEIVED_TOO_FEW))


def require_frames_on_time(*rows: ResultRow) -> None:
    """Raise FramesLateError if the result of a stream says nothing because the tester's own frames were late."""
    for row in rows:
        if are_frames_late(row):
            raise FramesLateError(row.message)


def repeat_when_frames_are_late(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Run a test again, in a new folder, when it raises FramesLateError; it has to finish in one of a few runs."""

    @functools.wraps(test)
    async def run(*, tmp_path: Path, **arguments: Any) -> None:
        for number in range(MAX_RUNS):
            folder = tmp_path / f"run-{number}"
            folder.mkdir()
            try:
                await test(tmp_path=folder, **arguments)
            except FramesLateError as error:
                problem = error
            else:
                return
        raise AssertionError(f"the machine was too busy in each of {MAX_RUNS} runs: {problem}")

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run
