"""`make bench-image`: builds the image and measures its size, how fast it is healthy, and its memory when idle."""

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
MOST_BYTES, MOST_START_S, MOST_IDLE_BYTES = 350e6, 3.0, 90 * 2**20
TICK_S, REST_S = 120.0, 40.0  # a tick of the simulated network; then the workers that look at answers end


def main() -> int:
    """Print the three figures with what is wanted; exit 1 if one is missed."""
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
    found = _inspect(container)
    size = float(_inspect(found["Image"])["Size"])
    start_s = _healthy_after_s(found)
    fresh = _memory(container)
    end = time.monotonic() + TICK_S
    while "tick_done" not in _run([*compose, "logs", "job-tester"], variables) and time.monotonic() < end:
        time.sleep(1)
    time.sleep(REST_S)
    idle = _memory(container)
    met = [
        _line("image size", size / 1e6, MOST_BYTES / 1e6, "MB"),
        _line("start to healthy", start_s, MOST_START_S, "s"),
        _line("idle memory, after a tick", idle / 2**20, MOST_IDLE_BYTES / 2**20, "MiB"),
    ]
    print(f"{'memory in the first tick':28}{fresh / 2**20:8.1f} MiB")
    return 0 if all(met) else 1


def _line(what: str, value: float, most: float, unit: str) -> bool:
    print(f"{what:28}{value:8.1f} {unit:4} wanted: at most {most:g}{'' if value <= most else '  MISSED'}")
    return value <= most


def _healthy_after_s(found: dict[str, Any]) -> float:
    """Take the time from the container's start to the end of the first check that found it healthy."""
    ends = [
        datetime.fromisoformat(_micro(one["End"])) for one in found["State"]["Health"]["Log"] if one["ExitCode"] == 0
    ]
    return (min(ends) - datetime.fromisoformat(_micro(found["State"]["StartedAt"]))).total_seconds()


def _micro(moment: str) -> str:
    """Cut an instant's nanoseconds to what Python reads; all are of the same zone or say theirs."""
    whole, _, rest = moment.partition(".")
    digits = "".join(one for one in rest[:9] if one.isdigit())
    return f"{whole}.{digits[:6]:0<6}{rest[len(digits) :]}".replace("Z", "+00:00")


def _memory(container: str) -> float:
    """Give the bytes that the container's processes hold, without the disk cache."""
    text = _run(["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", container]).split("/")[0].strip()
    number, unit = text.rstrip("BKMGi"), text[-3]
    return float(number) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit]


def _inspect(what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_run(["docker", "inspect", what]))[0]
    return found


def _run(command: list[str], variables: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
