"""Tune the interpreter so that neither its garbage collector nor another thread delays the event loop."""

from __future__ import annotations

import gc
import sys

# Python's defaults of 700, 10 and 10 go through the jobs in flight again and again, and through everything that a tick
# holds for tens of milliseconds each time, which a round trip being timed would show. These make it rare.
_YOUNG_THRESHOLD, _MIDDLE_THRESHOLD, _OLD_THRESHOLD = 5_000, 4, 1_000
# A busy thread may keep the interpreter for 5 ms after the loop asks for it; this is a tenth of that.
_SWITCH_INTERVAL_S = 0.0005


def configure_runtime() -> None:
    """Exempt what was loaded at the start from collection, and make collections of old objects rare.

    Most of what a tick makes has no reference cycles and is freed at once; the rest waits for collect_garbage().
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_THRESHOLD, _MIDDLE_THRESHOLD, _OLD_THRESHOLD)


def collect_garbage() -> None:
    """Collect all garbage. To be called between ticks, while no job is being timed."""
    gc.collect()
