"""The worker's side: looks at answers that come in on standard input, within bounds that the system enforces.

It ends when the daemon is gone, and never outlives a task by more than the processor time that the task may take.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

from jobtester.checks import audio, image
from jobtester.checks.evaluation import (
    CheckReport,
    encode_report,
    evaluate,
    read_exactly,
    read_message,
    read_task,
    write_message,
)
from jobtester.checks.inspection import inspect_media
from jobtester.checks.registry import load_decoders
from jobtester.domain.reasons import Fault, Finding

_MEMORY = 160 * 2**20  # bytes that looking at an answer may take, beside the worker itself
_PATIENCE = 5  # of 19: the event loop, which measures, goes first; what is looked at can wait a little
_UNLIMITED = resource.RLIM_INFINITY


def main() -> None:
    """Take tasks until the other side has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_PATIENCE)
    _forbid(resource.RLIMIT_CORE, 0)
    _forbid(resource.RLIMIT_FSIZE, 0)
    _forbid(resource.RLIMIT_NOFILE, 64)
    bounds = _Bounds()
    with socket.socket(fileno=sys.stdin.fileno()) as link, link.makefile("rwb") as stream:
        pipe = cast("BinaryIO", stream)
        while (header := read_message(pipe)) is not None:
            write_message(_answer(header, pipe, bounds), pipe)
            pipe.flush()


def _answer(header: dict[str, Any], pipe: BinaryIO, bounds: _Bounds) -> dict[str, Any]:
    if "inspect" in header:
        content = read_exactly(pipe, header["size"])
        (image if header["inspect"] == "image" else audio).prepare()
        with bounds.around(header["cpu_s"], len(content)):
            return inspect_media(content, header["inspect"])
    task = read_task(header["task"], pipe)
    load_decoders(task.expectation.checks)
    try:
        with bounds.around(header["cpu_s"], task.size):
            report = evaluate(task)
    except MemoryError:
        finding = Finding(
            "body", "too_heavy", "the answer needs more memory to read than the tester grants", Fault.TESTER
        )
        report = CheckReport((finding,))
    return encode_report(report)


class _Bounds:
    """Limits on processor time, whose end is the worker's end, and on memory, which shows as MemoryError."""

    def __init__(self) -> None:
        self._loaded = 0
        self._own = 0

    @contextlib.contextmanager
    def around(self, cpu_s: float, size: int) -> Any:
        """Bound what happens inside; `size` bytes of the task are in memory already."""
        if self._loaded != len(sys.modules):
            self._loaded, self._own = len(sys.modules), _address_space() - size
        if self._own > 0:
            resource.setrlimit(resource.RLIMIT_AS, (self._own + _MEMORY, _UNLIMITED))
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            resource.setrlimit(resource.RLIMIT_AS, (_UNLIMITED, _UNLIMITED))


def _address_space() -> int:
    """Give the bytes of address space in use, 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except (OSError, ValueError):
        return 0
    return pages * resource.getpagesize()


def _forbid(limit: int, most: int) -> None:
    resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    main()
