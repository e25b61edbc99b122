"""A copy of the project, as after `git clone`, brought up by Docker Compose under a name of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.metrics import without_region

ROOT = Path(__file__).resolve().parents[2]


def engine_problem() -> str:
    """Return why containers cannot be run here; empty if they can."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"no Docker engine with Compose: {error}"
        if done.returncode:
            return f"no Docker engine with Compose: {done.stderr.strip()[:200]}"
    return ""


def copy_project(folder: Path) -> Path:
    """Copy the files that git tracks, or would, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@dataclass(frozen=True, slots=True)
class Project:
    """One Compose project in a folder."""

    folder: Path
    name: str
    port: int
    image: str

    def compose(self, *arguments: str, check: bool = True, timeout_s: float = 600) -> str:
        """Run one Compose command; return what it printed."""
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.name, *arguments],
            cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        if check and done.returncode:
            logs = "" if arguments[0] == "logs" else self.compose("logs", "--tail=50", check=False)
            raise AssertionError(f"docker compose {' '.join(arguments)}: {done.stderr}\n{logs}")
        return done.stdout

    def shell(self, script: str) -> None:
        """Run what a page tells people to type, in this project instead of one named after the folder."""
        done = subprocess.run(
            ["sh", "-ec", script],
            cwd=self.folder,
            env={**self.environment(), "COMPOSE_PROJECT_NAME": self.name},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{script}: {done.stderr}"

    def environment(self) -> dict[str, str]:
        """Return the variables that keep this project apart from others on the same engine."""
        own = {"HOST_PORT": str(self.port), "JOBTESTER_IMAGE": self.image}
        inherited = {
            name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST", "PYTHON_IMAGE") if name in os.environ
        }
        return {**inherited, **own}

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of a service's container."""
        number = self.compose("ps", "--all", "--quiet", service).strip()
        done = subprocess.run(["docker", "inspect", number], capture_output=True, check=True)
        container: dict[str, Any] = json.loads(done.stdout)[0]
        return container

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the tester's log lines of one event, oldest first."""
        lines = self.compose("logs", "--no-log-prefix", "--no-color", "job-tester").splitlines()
        entries = [json.loads(line[line.index("{") :]) for line in lines if "{" in line]
        return [entry for entry in entries if entry.get("event") == event]

    def get(self, path: str) -> str:
        """Get a page of the tester through its published port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        lines = without_region(self.get("/metrics")).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def run_python(self, service: str, code: str) -> str:
        """Run Python inside a service's container."""
        return self.compose("exec", "--no-TTY", service, "python", "-c", code)
