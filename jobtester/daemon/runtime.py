"""Interpreter: set so that neither the garbage collector nor another thread holds up the event loop."""

from __future__ import annotations

import gc
import sys

_YOUNG, _MIDDLE = 5_000, 4  # Python's 700 would go through the jobs in the air again and again; this takes milliseconds
_OLD = 1_000  # Python's 10 would go through everything a tick holds, again and again, for tens of milliseconds each
_TURN_S = 0.0005  # Python lets a busy thread keep the interpreter for ten times as long once the loop asks for it


def configure_runtime() -> None:
    """Put what was loaded at the start out of the collector's sight, and have it look at old objects rarely.

    Most of what a tick makes is free of cycles and goes when nobody holds it any more; the rest waits for tidy().
    """
    sys.setswitchinterval(_TURN_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def collect_garbage() -> None:
    """Collect everything now: between two ticks, when no job is being timed."""
    gc.collect()
