"""Run the benchmarks for `make bench`, and print one table; all of them also write benchmarks/latest.json."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks import rows
from jobtester.logs import configure_logs

PARTS = (
    "targeting",
    "throughput",
    "live_runner",
    "scaling",
    "recording",
    "delivery",
    "planning",
    "startup",
    "pages",
    "video",
    "media",
)


def main() -> None:
    """Run the named parts, all by default."""
    configure_logs("error", "console")
    console = Console(width=130)
    measured: list[rows.Row] = []
    for part in sys.argv[1:] or PARTS:
        began = time.perf_counter()
        measured += asyncio.run(importlib.import_module(f"benchmarks.{part}").measure())
        console.print(f"{part}: {time.perf_counter() - began:.0f} s", style="dim")
    rows.show(measured, console)
    if not sys.argv[1:]:
        rows.write(measured, Path(__file__).parent / "latest.json")


if __name__ == "__main__":
    main()
