"""Measure how long the program takes to start."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rows import Row

_RUNS = 5
_SETTLED_S = 3.0
_IDLE_S = 20.0
_MB = 2**20
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
    with _serve() as process:
        _wait_until_healthy()
        memory_mb, cores = _measure_idle(process)
    return [
        Row.with_bar("jobtester --help, median", statistics.median(helps), "s", at_most=0.3),
        Row.with_bar("serve to the first /healthz, median", statistics.median(serves), "s", at_most=1.0),
        Row.with_bar("memory of an idle serve", memory_mb, "MiB", at_most=45),
        Row.with_bar("processor of an idle serve", cores * 100, "% of a core", at_most=0.5),
    ]


def _time_help() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "jobtester", "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def _time_serve() -> float:
    began = time.perf_counter()
    with _serve():
        _wait_until_healthy()
        return time.perf_counter() - began


@contextmanager
def _serve() -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(_CONFIG)
        process = subprocess.Popen(
            [sys.executable, "-m", "jobtester", "serve", "-c", str(path)],
            cwd=folder, stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(Path(__file__).parents[1]), "MALLOC_ARENA_MAX": "1"},  # as in the image
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def _wait_until_healthy() -> None:
    """Poll as a container's health check does, which knows nothing of what goes on inside."""
    began = time.perf_counter()
    while time.perf_counter() - began < 30:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/healthz", timeout=1) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.01)
    raise RuntimeError("the daemon did not become healthy")


def _measure_idle(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Return the memory in MiB, without files that are mapped, and the cores of a process that has nothing to do."""
    time.sleep(_SETTLED_S)
    before_s = _read_cpu_s(process.pid)
    time.sleep(_IDLE_S)
    cores = (_read_cpu_s(process.pid) - before_s) / _IDLE_S
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024 / _MB, cores


def _read_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
