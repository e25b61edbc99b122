"""Build the image for `make bench-image`, and measure its size, how fast it is healthy, and its memory when idle."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_MAX_BYTES, _MAX_START_S, _MAX_IDLE_BYTES = 350e6, 3.0, 90 * 2**20
_TICK_S, _WORKER_EXIT_S = 120.0, 40.0  # a tick of the simulated network; then the idle worker processes end


def main() -> int:
    """Print the three figures with their limits; exit 1 if one is exceeded."""
    name = f"jobtester-bench-{secrets.token_hex(3)}"
    with tempfile.TemporaryDirectory() as config:
        Path(config).chmod(0o755)
        text = (ROOT / "config.toml").read_text("utf-8").replace("[limits]\n", '[limits]\nbusy_backoff = "500ms"\n', 1)
        (Path(config) / "config.toml").write_text(text, "utf-8")
        variables = {**os.environ, "CONFIG_DIR": config, "HOST_PORT": "0", "JOBTESTER_IMAGE": f"{name}:bench"}
        compose = ["docker", "compose", "--project-name", name]
        try:
            began = time.monotonic()
            _run([*compose, "build", "--quiet"], variables)
            print(f"built in {time.monotonic() - began:.0f} s")
            _run([*compose, "up", "--detach", "--wait"], variables)
            return _measure(compose, variables)
        finally:
            subprocess.run(
                [*compose, "down", "--volumes", "--timeout", "5"], cwd=ROOT, env=variables, capture_output=True
            )
            subprocess.run(["docker", "image", "rm", "--force", f"{name}:bench"], capture_output=True)


def _measure(compose: list[str], variables: dict[str, str]) -> int:
    container = _run([*compose, "ps", "--quiet", "job-tester"], variables).strip()
    details = _inspect(container)
    size = float(_inspect(details["Image"])["Size"])
    start_s = _time_to_healthy_s(details)
    first_tick_memory = _read_memory(container)
    end = time.monotonic() + _TICK_S
    while "tick_done" not in _run([*compose, "logs", "job-tester"], variables) and time.monotonic() < end:
        time.sleep(1)
    time.sleep(_WORKER_EXIT_S)
    idle_memory = _read_memory(container)
    within_limits = [
        _print_figure("image size", size / 1e6, _MAX_BYTES / 1e6, "MB"),
        _print_figure("start to healthy", start_s, _MAX_START_S, "s"),
        _print_figure("idle memory, after a tick", idle_memory / 2**20, _MAX_IDLE_BYTES / 2**20, "MiB"),
    ]
    print(f"{'memory in the first tick':28}{first_tick_memory / 2**20:8.1f} MiB")
    return 0 if all(within_limits) else 1


def _print_figure(name: str, value: float, limit: float, unit: str) -> bool:
    print(f"{name:28}{value:8.1f} {unit:4} limit {limit:g}{'' if value <= limit else '  EXCEEDED'}")
    return value <= limit


def _time_to_healthy_s(container: dict[str, Any]) -> float:
    """Return the time from the container's start to the end of the first successful health check."""
    ends = [
        datetime.fromisoformat(_to_microseconds(check["End"]))
        for check in container["State"]["Health"]["Log"]
        if check["ExitCode"] == 0
    ]
    return (min(ends) - datetime.fromisoformat(_to_microseconds(container["State"]["StartedAt"]))).total_seconds()


def _to_microseconds(instant: str) -> str:
    """Return an ISO instant with at most six digits of a second, as Python reads it."""
    whole, _, rest = instant.partition(".")
    digits = "".join(char for char in rest[:9] if char.isdigit())
    return f"{whole}.{digits[:6]:0<6}{rest[len(digits) :]}".replace("Z", "+00:00")


def _read_memory(container: str) -> float:
    """Return the bytes that the container's processes hold, without the disk cache."""
    text = _run(["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", container]).split("/")[0].strip()
    number, unit = text.rstrip("BKMGi"), text[-3]
    return float(number) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit]


def _inspect(name: str) -> dict[str, Any]:
    details: dict[str, Any] = json.loads(_run(["docker", "inspect", name]))[0]
    return details


def _run(command: list[str], variables: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
