"""Measure how long the program takes to start."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.rows import Row

_RUNS = 5
_PORT = 7_935
_CONFIG = f"""
[server]
host = "127.0.0.1"
port = {_PORT}
[[gateways]]
name = "g"
url = "http://127.0.0.1:1"
cli_url = "http://127.0.0.1:1"
[leaderboard]
post = false
[schedule]
interval = "1h"
run_at_start = false
"""


async def measure() -> list[Row]:
    """Return the medians of a few starts."""
    return await asyncio.to_thread(_measure)


def _measure() -> list[Row]:
    helps = [_time_help() for _ in range(_RUNS)]
    serves = [_time_serve() for _ in range(_RUNS)]
    return [
        Row.with_bar("jobtester --help, median", statistics.median(helps), "s", at_most=0.3),
        Row.with_bar("serve to the first /healthz, median", statistics.median(serves), "s", at_most=1.0),
    ]


def _time_help() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jobtester", "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def _time_serve() -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(_CONFIG)
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "jobtester", "serve", "-c", str(path)],
            cwd=folder, stderr=subprocess.DEVNULL, env={"PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        try:
            # As a container's health check sees it, which polls and knows nothing of what goes on inside.
            while time.perf_counter() - began < 30:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/healthz", timeout=1) as response:
                        if response.status == 200:
                            return time.perf_counter() - began
                except (urllib.error.URLError, OSError):
                    time.sleep(0.01)
            raise RuntimeError("the daemon did not become healthy")
        finally:
            process.terminate()
            process.wait()
